"""Talk to a server with the openai client: python examples/chat.py URL MODEL."""

import sys

from openai import OpenAI


def main(url: str, model: str) -> None:
    """Stream a completion, then ask for two choices in a form."""
    client = OpenAI(base_url=url, api_key="none")
    stream = client.completions.create(
        model=model, prompt="It is a truth universally", max_tokens=24, temperature=0, stream=True
    )
    print("".join(chunk.choices[0].text for chunk in stream if chunk.choices).strip() != "")
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Who is she?"}],
        n=2,
        seed=7,
        max_tokens=40,
        extra_body={"guided_choice": ["Emma", "Elinor", "Anne"]},
    )
    print(all(choice.message.content in {"Emma", "Elinor", "Anne"} for choice in answer.choices))


if __name__ == "__main__":
    main(*sys.argv[1:])
