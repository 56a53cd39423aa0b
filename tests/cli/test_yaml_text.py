"""Objects as YAML are what any reader takes them for."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from rackscale.cli.yaml_text import yaml_text

KEYS = st.text(max_size=80)  # YAML has a limit of 1,024 characters, escaped, for a key on its line
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(["yes", "a: b\nc", "a\nb\n", "~", 0.9, 0.0])
)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(documents=st.lists(st.dictionaries(KEYS, values, min_size=1), min_size=1, max_size=3))
def test_yaml_reads_as_what_was_written(documents):
    assert list(yaml.safe_load_all(yaml_text(documents))) == documents


def test_yaml_is_for_people():
    text = yaml_text([{"a": [{"b": "c", "d": [1, "2"]}], "e": {}, "f": [], "g": "x = 1\n\ny\n", "h": True}])
    assert text == (
        '---\na:\n  - b: c\n    d:\n      - 1\n      - "2"\ne: {}\nf: []\ng: |\n  x = 1\n\n  y\nh: true\n'
    )
