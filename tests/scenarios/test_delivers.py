"""Nothing breaks: what is on the list arrives once, and a burst says what it left."""

import email.policy
import json
import time

from scenarios.stage import Stage, mail, once_each, php, until, users


def test_ten_thousand_mails_of_all_shapes_arrive_once(stage: Stage) -> None:
    host = stage.host()
    shapes = [_as_json, _as_mixphp, _as_task]
    stage.push(shapes[number % 3](number) for number in range(10_000))
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(10_000))
    assert len({taken.id for taken in host.mails}) == 10_000
    assert stage.is_clean()


def _as_json(number: int) -> object:
    return mail(number)


def _as_mixphp(number: int) -> bytes:
    to = {f"u{number}@example.org": f"Näme {number}"}
    return php({"to": to, "subject": f"mail {number}", "body": "text"})


def _as_task(number: int) -> object:
    return {
        "from_email": "task@example.com",
        "to_email": f"u{number}@example.org",
        "title": f"mail {number}",
        "content": "text",
    }


def test_the_delivery_log_has_a_line_an_outcome(stage: Stage) -> None:
    host = stage.host()
    stage.push([*map(mail, range(50)), mail("x", to=["reply+550@example.org"])])
    log = stage.folder / "delivery.log"
    assert stage.burst("--delivery-log", str(log), relay=host).endswith("dead=1")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    delivered = [line for line in lines if line["outcome"] == "delivered"]
    assert sorted(line["label"] for line in delivered) == sorted(f"n{n}" for n in range(50))
    taken = {message.id.strip("<>").partition("@")[0]: message.to[0] for message in host.look()}
    assert {line["id"]: line["to"] for line in delivered} == taken
    assert all(line["reply"].startswith("250 ") and line["tries"] == 1 for line in delivered)
    (refused,) = [line for line in lines if line["outcome"] != "delivered"]
    assert refused["outcome"] == "never"
    assert refused["phase"] == "RCPT"
    assert refused["reply"].startswith("550 ")


def test_redirected_mail_goes_to_nobody_else(stage: Stage) -> None:
    host = stage.host(keeps=True)
    stage.push([mail(0, cc=["c@example.org"], bcc=["secret@example.org"]), mail(1)])
    stage.burst("--redirect-to", "staging@example.net", relay=host)
    assert [taken.to for taken in host.look()] == [["staging@example.net"]] * 2
    letters = [email.message_from_bytes(taken.content) for taken in host.mails]
    (first,) = [letter for letter in letters if letter["subject"] == "mail 0"]
    for original in ("u0@example.org", "c@example.org", "secret@example.org"):
        assert original in str(first["x-geomail-to"])


def test_mail_for_later_stays_until_it_is_due(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0), mail(1, send_at="2099-01-01T00:00:00Z"), mail(2, send_at=1)])
    assert stage.burst(relay=host) == "left delayed=1 parked=0 dead=0"
    once_each(host.arrivals(), ["u0@example.org", "u2@example.org"])
    assert stage.held() == 1


def test_mail_for_soon_goes_when_it_is_due_and_not_before(stage: Stage) -> None:
    host = stage.host()
    due = time.time() + 1.5
    stage.push([mail(0, send_at=due)])
    stage.worker(relay=host)
    host.has_taken(1)
    assert 0 <= host.mails[0].at - due < 1
    until(stage.is_clean)


def test_expired_mail_is_dead_and_says_so(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, expires_at=int(time.time()) - 1), mail(1, expires_at=4102444800)])
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=1"
    once_each(host.arrivals(), ["u1@example.org"])
    assert "expired" in stage.dead()[0].reason


def test_copies_go_out_and_blind_ones_are_not_told(stage: Stage) -> None:
    host = stage.host(keeps=True)
    stage.push([mail(0, cc="c@example.org", bcc=["b@example.org", {"email": "d@example.org"}])])
    stage.burst(relay=host)
    (taken,) = host.look()
    wanted = ["u0@example.org", "c@example.org", "b@example.org", "d@example.org"]
    assert taken.to == wanted
    letter = email.message_from_bytes(taken.content, policy=email.policy.default)
    assert letter["cc"] == "c@example.org"
    assert "bcc" not in letter
    assert b"b@example.org" not in taken.content
    assert b"d@example.org" not in taken.content


def test_many_recipients_travel_in_parts_and_each_gets_one(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, to=users(250)), mail("x")])
    assert stage.burst(relay=host).endswith("delayed=0 parked=0 dead=0")
    once_each(host.arrivals(), [*users(250), "ux@example.org"])
    assert sorted(len(taken.to) for taken in host.mails) == [1, 50, 100, 100]
    assert len({taken.id for taken in host.mails}) == 2
    assert stage.is_clean()


def test_each_recipient_has_its_own_outcome(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, to=["a@example.org", "reply+550@x.example", "reply+451@y.example", "b@x"])])
    line = stage.burst(relay=host, retry_base_s=600, retry_cap_s=600)
    assert line == "left delayed=1 parked=0 dead=1"
    once_each(host.arrivals(), ["a@example.org", "b@x"])
    (letter,) = stage.dead()
    assert letter.state.rcpt == ["reply+550@x.example"]
    assert "550" in letter.reason


def test_only_who_was_refused_for_now_is_tried_again(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, to=["a@example.org", "greylist+2@example.org", "b@example.org"])])
    stage.worker(relay=host)
    host.has_taken(2)
    until(stage.is_clean)
    once_each(host.arrivals(), ["a@example.org", "b@example.org", "greylist+2@example.org"])
    assert len({taken.id for taken in host.mails}) == 1


def test_what_is_refused_for_ever_is_dead_after_its_tries(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, to=["reply+451@example.org"], retries=2), mail(1)])
    log = stage.folder / "delivery.log"
    stage.worker("--delivery-log", str(log), relay=host)
    until(lambda: stage.counts().dead == 1)
    (letter,) = stage.dead()
    assert letter.state.tries == 3
    assert "451" in letter.reason
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["tries"] for line in told if line["label"] == "n0"] == [1, 2, 3]
