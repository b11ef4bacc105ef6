"""How sessions lie in files: names that nobody's key escapes from, and grammY's to the letter."""

import asyncio
import json
import re
import string

import pytest
from grammy import CASES, lasting, put_of, recorded, run_node, with_node
from hypothesis import given
from hypothesis import strategies as st

from gramkeep import ConfigurationError, SessionDecodeError, SessionEncodeError, Sessions
from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put
from gramkeep.storages.file import FileStorage
from gramkeep.storages.file.layout import HEADER, GramkeepLayout, GrammyLayout, Stored
from gramkeep.testing.conformance.base import assert_lifetime, attempts
from gramkeep.testing.conformance.keys import STRANGE_KEYS

RECORDED = recorded("grammy/file.json")
ENTRIES = RECORDED["entries"]
TRAVERSALS = ["../../x", "..", ".", "u/7", "/u/7", "a/../b", "a/..", "x..", "/", "", "\0", "a\0b"]

own = GramkeepLayout("file:///s")
grammy = GrammyLayout("file:///s")


@pytest.fixture
async def storage(tmp_path):
    storage = FileStorage(tmp_path / "sessions", layout="grammy")
    yield storage
    await storage.aclose()


async def value_of(storage, key):
    (record,) = await storage.get([key])
    return None if record is None else record.value


# Gramkeep's own names.


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("42", "42/42.json"),
        ("7", "7/7.json"),
        ("-100123:7", ",7/-100123,7.json"),
        ("user:42", "42/user,42.json"),
        ("user_name-1", "-1/user_name-1.json"),
        ("Ada", "da/%41da.json"),
        ("42@connection", "on/42%40connection.json"),
        ("a,b", "cb/a%2cb.json"),
        ("é", "a9/%c3%a9.json"),
        ("e\u0301", "81/e%cc%81.json"),
        ("..", "2e/%2e%2e.json"),
        ("../../x", "fx/%2e%2e%2f%2e%2e%2fx.json"),
        ("u/7", "f7/u%2f7.json"),
        ("a%2fb", "fb/a%252fb.json"),
        ("con", "on/%63on.json"),
        ("CON", "4e/%43%4f%4e.json"),
        ("lpt1", "t1/%6cpt1.json"),
        ("console", "le/console.json"),
        ("", "%/%.json"),
        ("%", "25/%25.json"),
    ],
)
def test_common_keys_can_be_read_in_the_names_of_their_files(key, path):
    assert "/".join(own.place(key)) == path


def test_a_long_key_is_cut_and_stands_in_its_file():
    key = "user:" + "k" * 300
    folder, name = own.place(key)
    assert re.fullmatch("user,k{43}~[0-9a-f]{64}[.]json", name)
    assert folder == name[-7:-5]
    assert own.key_in(name) is None
    content = own.pack(key, b"{}", None)
    assert content == HEADER + json.dumps({"key": key}).encode() + b"\n{}"
    assert own.unpack(content) == Stored(b"{}", None, key)


@given(st.text(st.characters(), max_size=130))
def test_any_key_is_found_again_from_its_name_or_its_file(key):
    folder, name = own.place(key)
    assert own.is_session(folder, name)
    in_name = own.key_in(name)
    assert key == (own.unpack(own.pack(key, b"1", None)).key if in_name is None else in_name)


@given(st.text(st.characters(), max_size=400))
def test_no_key_makes_a_name_that_any_file_system_would_mind(key):
    folder, name = own.place(key)
    assert set(name) <= set(string.ascii_lowercase + string.digits + "_,-%~.")
    assert name.count(".") == 1
    assert not name.startswith(".")
    assert 1 <= len(folder) <= 2 < len(name) <= 128
    assert "." not in folder
    assert name.removesuffix(".json") not in {"con", "prn", "aux", "nul", "com1", "lpt9"}


def test_names_differ_in_more_than_the_case_of_letters():
    keys = [*STRANGE_KEYS, "Ab", "AB", "K" * 300, "%41", "%C3"]
    names = {"/".join(own.place(key)).casefold() for key in keys}
    assert len(names) == len(keys)


@pytest.mark.parametrize(
    "path",
    [
        *("42/43.json", "da/Ada.json", "61/%61.json", "4g/%4g.json", "ff/%ff.json", "42/42.txt"),
        *("on/con.json", "/.json", "cb/a%2Cb.json", "64/.json", "nb/.gramkeep-ab.tmp", "42/42"),
    ],
)
def test_a_name_that_no_key_leads_to_is_somebody_elses(path):
    assert not own.is_session(*path.split("/"))


# Gramkeep's own content.


def test_a_value_that_never_expires_is_the_whole_file():
    assert own.pack("42", b'{"count":1}', None) == b'{"count":1}'


def test_an_expiry_is_a_line_before_the_value():
    content = own.pack("42", b'{"count":1}', 1767225600000)
    assert content == b'#gramkeep {"expires_at": 1767225600000}\n{"count":1}'
    assert own.unpack(content) == Stored(b'{"count":1}', 1767225600000)


@pytest.mark.parametrize(
    "value",
    [HEADER, HEADER + b"{}\n", HEADER + b'{"expires_at": 1}\nx', HEADER * 2, b"#gramkeep", b""],
)
def test_no_value_is_mistaken_for_that_line(value):
    for expires_at in (None, 1):
        content = own.pack("42", value, expires_at)
        assert own.unpack(content) == Stored(value, expires_at)


@pytest.mark.parametrize(
    "rest",
    [
        *(b"", b"{}", b"\n", b"[]\n", b'{"expires_at": "x"}\n', b'{"expires_at": true}\n'),
        *(b'{"key": 1}\n', b'{"other": 1}\n', b"{\n", b"\xff\n"),
    ],
)
def test_a_damaged_line_is_no_session(rest):
    with pytest.raises(ValueError):
        own.unpack(HEADER + rest)


# grammY's files.


def path_of(entry):
    """Where Node puts it: half a character, as JavaScript can cut it, is U+FFFD in a name."""
    return entry["path"].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def lay_out(root, entries):
    for entry in entries:
        path = root / path_of(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry["raw"], "utf-8")


def data_of(value):
    """What a session's value stands for, its envelope taken off as the codec does it."""
    decoded = json.loads(value)
    is_envelope = isinstance(decoded, dict) and {"__d"} <= decoded.keys() <= {"__d", "v", "e"}
    return decoded["__d"] if is_envelope else decoded


def as_stored(entry):
    """What an original's read gives, without the migrations that ran, which are not stored."""
    value = entry["value"]
    if entry["key"].startswith("legacy_") and "own_d" not in entry["key"]:
        value = {name: value[name] for name in value if name != "path"}
    return value


def test_every_recorded_file_is_where_the_layout_looks_for_it():
    for entry in ENTRIES:
        assert "/".join(grammy.place(entry["key"])) == path_of(entry)


async def test_every_recorded_session_is_read_and_listed(storage, tmp_path):
    lay_out(tmp_path / "sessions", ENTRIES)
    alive = [entry for entry in ENTRIES if "missing" not in entry]
    records = await storage.get([entry["key"] for entry in alive])
    for entry, record in zip(alive, records, strict=True):
        assert record is not None
        if "own_d" not in entry["key"]:  # there grammY drops the session's other fields
            assert data_of(record.value) == as_stored(entry), entry["key"]
        expires_at = json.loads(entry["raw"])
        expires_at = expires_at.get("e") if isinstance(expires_at, dict) else None
        if "own" not in entry["key"]:
            assert record.expires_at == (None if expires_at is None else expires_at / 1000)
    assert {entry["key"] for entry in ENTRIES} - {entry["key"] for entry in alive} == {
        "expired:counter"
    }
    assert await value_of(storage, "expired:counter") is None
    assert {key async for key in storage.scan()} == {entry["key"] for entry in alive}
    expiring = {entry["key"] for entry in alive if entry["key"].startswith("expiry:")}
    assert {key async for key in storage.scan("expiry:")} == expiring


def test_every_recorded_session_is_packed_into_the_recorded_bytes():
    for entry in ENTRIES:
        raw = entry["raw"].encode()
        stored = grammy.unpack(raw)
        assert grammy.pack(entry["key"], stored.value, stored.expires_at) == raw, entry["key"]


async def test_recorded_files_are_rewritten_byte_by_byte_under_their_names(storage, tmp_path):
    lay_out(tmp_path / "sessions", ENTRIES)
    lasting = [
        entry for entry in ENTRIES if grammy.unpack(entry["raw"].encode()).expires_at is None
    ]
    keys = [entry["key"] for entry in lasting]
    records = await storage.get(keys)
    puts = [Put(key, r.value, r.token) for key, r in zip(keys, records, strict=True)]
    assert await storage.put(puts) == [True] * len(lasting)
    for entry in lasting:
        assert (tmp_path / "sessions" / path_of(entry)).read_bytes() == entry["raw"].encode()
    there = {
        path.relative_to(tmp_path / "sessions").as_posix()
        for path in (tmp_path / "sessions").rglob("*.json")
    }
    assert there <= set(RECORDED["tree"])


@pytest.mark.parametrize("key", [*TRAVERSALS, "\ud800", "k" * 251])
async def test_a_key_that_grammy_has_no_safe_file_for_is_refused_by_name(storage, tmp_path, key):
    before = sorted(tmp_path.rglob("*"))
    for call in (storage.get([key]), storage.put([Put(key, b"1", ANY)])):
        with pytest.raises(ConfigurationError) as caught:
            await call
        assert caught.value.key == key
        assert caught.value.storage == storage.name
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix == ".json"] == []
    assert set(before) <= set(tmp_path.rglob("*"))


async def test_a_key_that_is_refused_holds_up_no_other(storage):
    calls = [storage.put([Put(key, b"1", ANY)]) for key in ("a", "../x", "b")]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [list, ConfigurationError, list]
    assert await value_of(storage, "b") == b"1"


@pytest.mark.parametrize("value", [b"", b"\0", b"{", b"NaN", b'"\xff"', b"\x93\x01", b"1 2"])
async def test_a_value_that_is_no_json_is_refused_in_grammys_layout(storage, value):
    await storage.put([Put("key", b"1", ANY)])
    with pytest.raises(SessionEncodeError, match="keeps JSON") as caught:
        await storage.put([Put("key", value, ANY)])
    assert (caught.value.key, caught.value.storage) == ("key", storage.name)
    assert await value_of(storage, "key") == b"1"


@pytest.mark.parametrize(
    "value",
    [
        *(b"1", b"null", b"[]", b"{}", b'"a\\nb"', b'{"a":[1,{"b":[]}],"c":"x: y, z"}'),
        *(b'{ "a": 1 }', b"[1,\n 2]", b"[1e+21,1.0,-0]", b'{"v":1,"__d":2}'),
        *(b'{"v":1,"__d":{"__d":3}}', b'{"__d":{"__d":3}}', b'{"__d":1,"v":"mine","e":5}'),
    ],
)
@pytest.mark.parametrize("ttl", [None, 60])
async def test_json_comes_back_exactly_from_grammys_layout(storage, value, ttl):
    assert await storage.put([Put("key", value, ABSENT, ttl)]) == [True]
    (record,) = await storage.get(["key"])
    assert record.value == value
    assert (record.expires_at is None) is (ttl is None)
    assert await storage.put([Put("key", KEEP, record.token, 90)]) == [True]
    (kept,) = await storage.get(["key"])
    assert (kept.value, kept.token) == (record.value, record.token)
    assert_lifetime(kept, 90)
    assert await storage.put([Put("key", DELETE, record.token)]) == [True]
    assert await value_of(storage, "key") is None


async def test_half_a_surrogate_pair_can_be_kept_but_not_for_a_time(storage):
    await storage.put([Put("key", b'"\\ud83c"', ANY)])
    assert await value_of(storage, "key") == b'"\\ud83c"'
    with pytest.raises(SessionEncodeError, match="can't have a lifetime"):
        await storage.put([Put("key", KEEP, ANY, 60)])


async def test_an_expiry_goes_into_grammys_envelope_and_counts_for_every_method(storage, tmp_path):
    for _ in attempts(within=0.3):
        await storage.put([Put("42", b'{"count":1}', ANY, 0.3)])
        (record,) = await storage.get(["42"])
    stored = json.loads((tmp_path / "sessions/42/42.json").read_text())
    assert stored == {"__d": {"count": 1}, "e": round(record.expires_at * 1000)}
    await storage.put([Put("43", b'{"v":2,"__d":{"count":1}}', ANY, 60)])
    assert list(json.loads((tmp_path / "sessions/43/43.json").read_text())) == ["v", "__d", "e"]
    await asyncio.sleep(0.4)
    assert await value_of(storage, "42") is None
    assert [key async for key in storage.scan()] == ["43"]
    assert await storage.put([Put("42", b"2", record.token)]) == [False]
    assert await storage.put([Put("42", b"2", ABSENT)]) == [True]


@pytest.mark.parametrize("content", [b"", b"{", b"\xef\xbb\xbf{}"])
async def test_a_broken_file_is_an_error_and_not_a_new_session(storage, tmp_path, content):
    await storage.put([Put("42", b"{}", ANY)])
    path = tmp_path / "sessions/42/42.json"
    path.write_bytes(content)
    async with Sessions(initial=dict, storage=storage) as sessions:
        with pytest.raises(SessionDecodeError):
            async with sessions.open("42"):
                pass
    assert path.read_bytes() == content


# Live, against the original.

FOR_BOTH = [
    *CASES,
    {"key": "number", "value": 1.5},
    {"key": "text", "value": {"text": "\u2028\x7f\t\"'\\/ 🍏", "": {}}},
]


async def run(script, folder, cases):
    await run_node(script, "file", cases, FILE_DIR=str(folder))


@with_node
async def test_what_grammy_writes_now_is_read_here(storage, tmp_path):
    await run("write.mjs", tmp_path / "sessions", FOR_BOTH)
    for entry in FOR_BOTH:
        assert data_of(await value_of(storage, entry["key"])) == entry["value"]
    assert {key async for key in storage.scan()} == {entry["key"] for entry in FOR_BOTH}


@with_node
async def test_what_is_written_here_grammy_reads_now(storage, tmp_path):
    await storage.put([put_of(case) for case in FOR_BOTH])
    await run("verify.mjs", tmp_path / "sessions", FOR_BOTH)
    mine = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*.json")}
    await run("write.mjs", tmp_path / "theirs" / "sessions", lasting(FOR_BOTH))
    for path in (tmp_path / "theirs").rglob("*.json"):
        assert mine[path.relative_to(tmp_path / "theirs")].read_bytes() == path.read_bytes()
