"""YAML 1.2's core schema: what a plain scalar is, and what is no run file's YAML, in one line that says where."""

import pytest

from lungsynth.run_yaml import DocumentError, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("+12", 12),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", float("-inf")),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("-0x1", "-0x1"),
        ("2020-01-01", "2020-01-01"),
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("TRUE", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("Null", None),
        ("", None),
        ("=", "="),
        (".", "."),
        ("<<", "<<"),
        ("'010'", "010"),
        ("!!str 010", "010"),
        ("!!float 3", 3.0),
    ],
)
def test_a_scalar_is_what_the_core_schema_says(text, value):
    found = parse(f"key: {text}\n".encode())["key"]
    assert (found, type(found)) == (value, type(value))


def test_anchors_and_merge_keys_work_and_a_merged_key_may_be_overridden():
    text = b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {x: 4, z: 5}]}\nd: {<<: &e {x: 6}, y: 7}\n"
    text += b"f: {<<: *e, x: 8}"
    assert parse(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2, "z": 5},
        "d": {"x": 6, "y": 7},
        "f": {"x": 8},
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_unicode_file_is_read_whatever_the_locale(encoding):
    assert parse("klasse: süß\r\n".encode(encoding)) == {"klasse": "süß"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"slices: {size: 32}\ntraining: {}\nslices: {root: a}", "lines 1 and 3: slices: is given twice; keep one"),
        (b"a:\n  b:\n    - c: 1\n      d: 2\n      c: 3", "lines 3 and 5: a.b.0.c: is given twice"),
        (b"a: {b: 1, 'b': 2}", "line 1: a.b: is given twice"),
        (b"8: 1\n0o10: 2", "lines 1 and 2: 0o10: is given twice"),
        (b"a: {<<: {b: 1}, <<: {c: 2}}", "line 1: a.<<: is given twice"),
        (b"a: 1\n---\nb: 2", "line 2, column 1: a second document begins"),
        (b"a:\n\tb: 1", "line 2, column 1: a tab"),
        (b"a: 'b", "that begins in line 1"),
        (b"a: 1\nb: \xe4", "line 2: byte 9 is no UTF-8; save the file as UTF-8"),
        (b"a: \x00", "character 4 is the control character U+0000"),
        (b"a: &a [*a]", "a.0: holds an alias of itself"),
        (b"a: *b", "undefined alias 'b'"),
        (b"? [a]\n: b", "line 1: a key is no word or number"),
        (b"a: !!timestamp 2020-01-01", "line 1, column 4: the tag !!timestamp is none of YAML's core schema"),
        (b"a: !!python/object/apply:os.getcwd []", "the tag !!python/object/apply:os.getcwd is none"),
        (b"a: !!int 3.5", "'3.5' is no int"),
        (b"a: " + b"9" * 5000, "is no int"),
        (b"[" * 5000, "is nested too deeply"),
    ],
)
def test_what_is_no_run_file_is_one_line_that_says_where(content, says):
    with pytest.raises(DocumentError) as error:
        parse(content)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
