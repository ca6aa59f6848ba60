"""The example domain: sessions that expire, by the app's clock."""

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from app.db import database_at
from app.main import create_app
from app.sessions import sessions
from app.settings import Settings
from support import FakeClock, insert_sessions, query, serving

YEAR_SECONDS = 365 * 24 * 60 * 60


async def test_a_new_session_is_answered_with_201(clock: FakeClock, settings: Settings) -> None:
    """Creating one gives its id, its user, and when it expires: now + ttl_seconds."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        answer = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
    assert answer.status_code == 201
    session = answer.json()
    assert session.keys() == {"id", "user", "expires_at"}
    assert (session["user"], session["expires_at"]) == ("ana", "2026-01-01T00:01:30Z")
    assert len(session["id"]) == 32


async def test_a_session_can_be_read(clock: FakeClock, settings: Settings) -> None:
    """Reading one answers 200 with what creating it did, to the microsecond."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        await clock.advance(microseconds=123_457)
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        read = await client.get(f"/sessions/{created.json()['id']}")
    assert read.status_code == 200
    assert read.json() == created.json()


async def test_two_sessions_of_a_user_differ(clock: FakeClock, settings: Settings) -> None:
    """The same request again makes another session."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        one = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        two = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
    assert one.json()["id"] != two.json()["id"]


async def test_an_unknown_session_is_answered_with_404(
    clock: FakeClock, settings: Settings
) -> None:
    """Whatever the id looks like, one that was never given is not found."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        ids = ["0" * 32, "x", "%00", "%FF", "' OR 1=1 --", "é" * 2_000]
        codes = {each: (await client.get(f"/sessions/{each}")).status_code for each in ids}
    assert codes == dict.fromkeys(ids, 404)


async def test_a_session_lives_until_it_expires(clock: FakeClock, settings: Settings) -> None:
    """A microsecond before its end it is there, at its end it is not found."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        await clock.advance(seconds=89, microseconds=999_999)
        before = await client.get(f"/sessions/{created.json()['id']}")
        await clock.advance(microseconds=1)
        after = await client.get(f"/sessions/{created.json()['id']}")
    assert (before.status_code, after.status_code) == (200, 404)


async def test_an_expired_session_is_404_while_its_row_exists(
    clock: FakeClock, settings: Settings
) -> None:
    """Expiry waits for no clean-up: what the app's clock calls over is not found."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 1})
        await clock.advance(minutes=1)
        answer = await client.get(f"/sessions/{created.json()['id']}")
    assert answer.status_code == 404
    assert rows(settings) == ["ana"]


async def test_a_deleted_session_is_gone(clock: FakeClock, settings: Settings) -> None:
    """Deleting one answers 204 and removes its row, and no other."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        ana = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        await client.post("/sessions", json={"user": "ben", "ttl_seconds": 90})
        deleted = await client.delete(f"/sessions/{ana.json()['id']}")
        read = await client.get(f"/sessions/{ana.json()['id']}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert read.status_code == 404
    assert rows(settings) == ["ben"]


async def test_deleting_twice_is_fine(clock: FakeClock, settings: Settings) -> None:
    """A session that is gone already is deleted with 204 again."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
        once = await client.delete(f"/sessions/{created.json()['id']}")
        twice = await client.delete(f"/sessions/{created.json()['id']}")
    assert (once.status_code, twice.status_code) == (204, 204)


async def test_what_is_just_within_the_limits_is_accepted(
    clock: FakeClock, settings: Settings
) -> None:
    """A user has 1 to 200 characters, a session lives 1 second to 1 year: both ends included."""
    users = ["a", "a" * 200, "\N{PILE OF POO}" * 200]
    news = [{"user": user, "ttl_seconds": 90} for user in users]
    news += [{"user": "ana", "ttl_seconds": seconds} for seconds in (1, YEAR_SECONDS)]
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        created = [await client.post("/sessions", json=new) for new in news]
        read = [await client.get(f"/sessions/{answer.json()['id']}") for answer in created]
    assert [answer.status_code for answer in created] == [201] * len(news)
    assert [answer.json()["user"] for answer in read] == [new["user"] for new in news]


async def test_what_is_just_beyond_the_limits_is_refused(
    clock: FakeClock, settings: Settings
) -> None:
    """One character or one second too few or too many is answered with 422, and kept nowhere."""
    bodies = [{"user": user, "ttl_seconds": 90} for user in ("", "a" * 201)]
    too_much = [0, -1, YEAR_SECONDS + 1, 2**64]
    bodies += [{"user": "ana", "ttl_seconds": seconds} for seconds in too_much]
    await check_refused(clock, settings, [json.dumps(body) for body in bodies], 422)


async def test_what_is_no_session_is_refused(clock: FakeClock, settings: Settings) -> None:
    """Wrong types, numbers that are none and text that no database takes are answered with 422."""
    bodies = [
        r'{"user": 1, "ttl_seconds": 90}',
        r'{"user": null, "ttl_seconds": 90}',
        r'{"user": ["ana"], "ttl_seconds": 90}',
        r'{"user": "ana", "ttl_seconds": "90"}',
        r'{"user": "ana", "ttl_seconds": 90.0}',
        r'{"user": "ana", "ttl_seconds": true}',
        r'{"user": "ana", "ttl_seconds": null}',
        r'{"user": "ana", "ttl_seconds": NaN}',
        r'{"user": "ana", "ttl_seconds": 1e999}',
        r'{"user": "ana"}',
        r'{"ttl_seconds": 90}',
        r"{}",
        r"[]",
        r"null",
        r"",
        r'{"user": "ana", "ttl_seconds": 90',
        r'{"user": "a\u0000b", "ttl_seconds": 90}',
        r'{"user": "\ud800", "ttl_seconds": 90}',
        r'{"user": "ana", "ttl_seconds": "\udfff"}',
        r'{"\ud800": 1, "ttl_seconds": 90}',
    ]
    await check_refused(clock, settings, bodies, 422)


async def test_what_cannot_be_read_as_json_is_refused(clock: FakeClock, settings: Settings) -> None:
    """Bytes that are no UTF-8, and brackets without an end, are answered with 400."""
    bodies = [b'{"user": "\xff", "ttl_seconds": 90}', b"[" * 100_000]
    await check_refused(clock, settings, bodies, 400)


async def test_sessions_survive_a_restart(clock: FakeClock, settings: Settings) -> None:
    """Another app on the same database, as after a deployment, answers with the same session."""
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        created = await client.post("/sessions", json={"user": "ana", "ttl_seconds": 90})
    async with serving(create_app(settings, jobs=[], clock=clock), clock) as client:
        read = await client.get(f"/sessions/{created.json()['id']}")
    assert read.json() == created.json()


async def check_refused(
    clock: FakeClock, settings: Settings, bodies: Sequence[str | bytes], code: int
) -> None:
    """Each is answered with the code, and nothing is kept of it."""
    app = create_app(settings, jobs=[], clock=clock)
    async with serving(app, clock) as client:
        headers = {"Content-Type": "application/json"}
        answers = [await client.post("/sessions", content=body, headers=headers) for body in bodies]
    codes = {body: answer.status_code for body, answer in zip(bodies, answers, strict=True)}
    assert codes == dict.fromkeys(bodies, code)
    assert rows(settings) == []


def rows(settings: Settings) -> list[str]:
    """The users whose sessions are in the table, expired or not."""
    return [user for (user,) in query(settings, 'SELECT "user" FROM sessions ORDER BY 1')]


async def test_moments_compare_as_moments(clock: FakeClock, settings: Settings) -> None:
    """A query gives and takes aware datetimes, to the microsecond, whatever their zone."""
    moment = clock.now() + timedelta(microseconds=1)
    await insert_sessions(settings, {"ana": 1}, moment)

    def expired(connection: Connection) -> list[datetime]:
        column = sessions.c.expires_at
        return list(connection.scalars(select(column).where(column <= now)))

    with closing(database_at(settings.url)) as database:
        now = clock.now()
        assert await database.read(expired) == []
        now = moment.astimezone(ZoneInfo("Asia/Tokyo"))
        assert await database.read(expired) == [moment]
