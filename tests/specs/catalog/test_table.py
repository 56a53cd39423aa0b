import pytest

from rackscale.core import SpecError
from rackscale.specs.catalog.table import Table, closest, names, open_table


def table(**values):
    return Table(values, "f.toml")


def test_fields_come_as_what_they_are():
    given = table(t="x", o="b", f=True, w=3, n=2, d=1.5, l=[0, 4], s={"a": 1})
    assert given.text("t") == "x"
    assert given.choice("o", ("a", "b")) == "b"
    assert given.flag("f") is True
    assert given.whole("w") == 3
    assert (given.number("n"), given.number("d")) == (2.0, 1.5)
    assert given.wholes("l", least=0) == (0, 4)
    assert given.need("s").whole("a") == 1
    given.close()


def test_defaults_stand_in_for_what_is_absent():
    given = table()
    assert given.text("t", "x") == "x"
    assert given.choice("o", ("a", "b"), "a") == "a"
    assert given.flag("f") is False
    assert given.whole("w", 0) == 0
    assert given.number("n", 2.0) == 2.0
    assert given.wholes("l", least=0) == ()
    assert given.sub("s", required=False) is None


@pytest.mark.parametrize(
    ("read", "value", "wanted"),
    [
        (lambda given: given.text("k"), None, "f.toml has no k: add it: a text"),
        (lambda given: given.text("k"), "", 'k in f.toml is "": it must be a text'),
        (lambda given: given.text("k", "x"), 3, "it must be a text"),
        (lambda given: given.choice("k", ("mla", "gqa")), "gpa", "k in f.toml is 'gpa': give gqa"),
        (lambda given: given.flag("k"), 1, "it must be true or false"),
        (lambda given: given.whole("k"), True, "it must be a whole number, at least 1"),
        (lambda given: given.whole("k"), 0, "it must be a whole number, at least 1"),
        (lambda given: given.whole("k"), 2.0, "it must be a whole number"),
        (lambda given: given.number("k"), -1, "it must be a number above 0"),
        (lambda given: given.number("k"), "fast", "it must be a number above 0"),
        (lambda given: given.number("k"), float("inf"), "it must be a number above 0"),
        (lambda given: given.number("k"), 2**60, "it must be a number above 0"),
        (lambda given: given.number_or_text("k"), "", "it must be a number"),
        (lambda given: given.number_or_text("k"), True, "it must be a number"),
        (lambda given: given.wholes("k", least=0), [1, -1], "it must be a list of whole numbers, at least 0"),
        (lambda given: given.wholes("k", least=0), 3, "it must be a list of whole numbers"),
        (lambda given: given.sub("k"), 3, "it must be a table"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(read, value, wanted):
    with pytest.raises(SpecError) as error:
        read(table() if value is None else table(k=value))
    assert wanted in str(error.value)
    assert "f.toml" in str(error.value)


def test_a_table_within_a_table_is_named_by_its_path():
    inner = table(config={"rope": {}}).need("config").need("rope")
    with pytest.raises(SpecError, match=r"f\.toml, \[config\.rope\] has no theta"):
        inner.number("theta")


def test_an_unknown_field_is_refused_with_the_one_it_is_like():
    given = table(top_n=8)
    given.whole("top_k", 1)
    with pytest.raises(SpecError, match=r"unknown 'top_n': leave it out, or give top_k"):
        given.close()


def test_a_hint_names_the_closest_or_all():
    assert closest("hgx-h20", ("hgx-h200", "mi300x"), "give") == "give hgx-h200"
    assert closest("zzz", ("a", "b"), "give") == "give one of a, b"
    assert closest("zzz", (), "give") == "leave it out"


def test_a_name_that_the_catalog_lacks():
    with pytest.raises(SpecError) as error:
        open_table("systems", "gb200-nvl27")
    assert str(error.value) == (
        "the catalog has no system 'gb200-nvl27': give gb200-nvl72, or a TOML file's path"
    )


def test_a_path_cannot_leave_the_catalog_by_a_name():
    with pytest.raises(SpecError, match="cannot be read"):
        open_table("systems", "../chips/h200")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match=r"none\.toml cannot be read \(No such file"):
        open_table("chips", tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = " + b"[" * 100_000])
def test_a_file_that_is_no_toml(tmp_path, content):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="is no TOML"):
        open_table("chips", str(path))


def test_names_are_sorted():
    assert list(names("systems")) == sorted(names("systems"))
    assert "gb200-nvl72" in names("systems")
