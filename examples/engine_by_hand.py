"""The control plane without a model: hand it events, look at its commands."""

from rackscale.core import Arrive, Emit, Finish, RankResult, Request, RunStep, Seconds, StepDone, column
from rackscale.engine import build
from rackscale.specs import DeploymentSpec, GroupSpec


def main() -> None:
    """One request of two tokens, from its arrival to its end."""
    group = GroupSpec(num_blocks=8, max_running=2, max_batched_tokens=8)
    deployment = DeploymentSpec(model="m", groups=(group,), block_size=4, max_model_len=16)
    engine = build(deployment)

    request = Request(id="r", prompt=(5, 6, 7), max_tokens=2)
    commands = engine.handle(Arrive(request=request), Seconds(0.0))
    plans = [command.plan for command in commands if isinstance(command, RunStep)]
    for plan in plans:
        (rank,) = plan.ranks
        print(f"step {plan.plan}: from {rank.num_computed.tolist()}, {rank.num_new.tolist()} tokens")

    for time, (plan, token) in enumerate(zip(plans, (8, 9), strict=True), start=1):
        result = RankResult(tokens=column([token]), expert_loads=column())
        done = StepDone(group=plan.group, plan=plan.plan, ranks=(result,))
        for command in engine.handle(done, Seconds(float(time))):
            match command:
                case Emit():
                    print(f"emit {command.tokens.tolist()}")
                case Finish():
                    print(f"finish: {command.reason}")


if __name__ == "__main__":
    main()
