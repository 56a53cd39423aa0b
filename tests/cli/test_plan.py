"""`rackscale plan`: what it prints and writes, and how it says no."""

import json

import pytest
from planning import beliefs

from rackscale.cli.app import main
from rackscale.plan.beliefs import Beliefs

SMALL = ["plan", "--model", "qwen3-30b-a3b", "--system", "hgx-b200", "--isl", "1024", "--osl", "256"]
SMALL += ["--chips", "4"]
POINT = {
    "tokens_per_s_per_chip",
    "output_tokens_per_s_per_chip",
    "tokens_per_s_per_user",
    "ttft_s",
    "tpot_ms",
    "tokens_per_s_per_mw",
    "usd_per_mtok",
    "interval90",
    "chips",
    "concurrency",
    "prefill",
    "decode",
}


@pytest.fixture(autouse=True)
def without_a_fit(monkeypatch):
    monkeypatch.setattr(Beliefs, "of_fit", classmethod(lambda _: beliefs()))


def run(capsys, *words):
    code = main([*SMALL, *words])
    return code, *capsys.readouterr()


def test_json_has_the_point_of_every_verb(capsys):
    code, out, _ = run(capsys, "--tpot-ms", "20", "--weights", "fp8", "--json")
    assert code == 0
    made = json.loads(out)
    assert {"model", "system", "isl", "osl", "best", "pareto", "searched", "seconds"} <= set(made)
    for point in (made["best"], *made["pareto"]):
        assert set(point) >= POINT
        assert {"groups", "ranks", "tp", "ep", "batch_tokens"} <= set(point["prefill"])
        assert {"groups", "ranks", "tp", "ep", "batch_per_rank", "redundant_experts"} <= set(point["decode"])
        for name, (low, high) in point["interval90"].items():
            value = point[name] if name == "tokens_per_s_per_chip" else point[name]["p50"]
            assert low < value < high
    best = made["best"]
    assert best["tokens_per_s_per_user"] >= 50 * (1 - 1e-5)
    assert best["tpot_ms"]["p50"] == pytest.approx(1000 / best["tokens_per_s_per_user"])


def test_text_has_the_answer_first(capsys, tmp_path):
    out_file, page = tmp_path / "d.toml", tmp_path / "r.html"
    code, out, err = run(
        capsys, "--interactivity", "60", "--explain", "--out", str(out_file), "--report", str(page)
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "at least 60 tokens/s per user" in lines[0]
    assert "tokens/s per chip" in lines[2]
    for words in ("TPOT", "TTFT", "Bound by", "Not chosen", "Frontier", "rackscale.cost.step", "layouts in"):
        assert words in out
    assert "[plan]" in out_file.read_text()
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--interactivity", "5", "--tpot-ms", "5"], "--interactivity with --tpot-ms: give one or the other"),
        (["--tpot-ms", "nan"], "--tpot-ms is nan: give a number above 0"),
        (["--interactivity", "-1"], "interactivity is -1.0: give a number above 0"),
        (["--interactivity", "99999"], "nothing gives 99999 tokens/s per user"),
        (["--objective", "megawatt"], "--objective megawatt is not known"),
        (["--redundant", "some"], "--redundant some: give a whole number, or auto"),
        (["--skew", "0.5", "--router-trace", "x.csv"], "--router-trace with --skew: give one or the other"),
        (["--router-trace", "no/such.csv"], "no/such.csv cannot be read"),
        (["--model", "qwen3-30b"], "the catalog has no model 'qwen3-30b': give qwen3-30b-a3b"),
        (["--system", "b200"], "the catalog has no system 'b200': give hgx-b200"),
        (["--isl", "many"], "Input should be a valid integer"),
        (["--report", "no/such/folder.html"], "no/such/folder.html cannot be written"),
        (["--out", "no/such/folder.toml"], "no/such/folder.toml cannot be written"),
    ],
)
def test_bad_input_is_one_line(capsys, words, what):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert what in err
    assert err.count("\n") == 1
    assert err.startswith("rackscale: ")


def test_a_router_trace_gives_the_skew(capsys, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(",".join(str(1000 // (expert + 1)) for expert in range(128)))
    code, out, _ = run(capsys, "--router-trace", str(trace), "--redundant", "0", "--json")
    assert code == 0
    assert json.loads(out)["best"]["decode"]["redundant_experts"] == 0


def test_prefixes_in_the_host_s_memory_spare_their_computing(capsys):
    rates = []
    for share in ("0", "0.8"):
        code, out, _ = run(capsys, "--tpot-ms", "20", "--weights", "fp8", "--prefix-hits", share, "--json")
        assert code == 0
        rates.append(json.loads(out)["best"]["tokens_per_s_per_chip"])
    assert rates[1] > 1.2 * rates[0]
