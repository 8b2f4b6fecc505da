"""What hosts ask for in words is read, and what only looks like it is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.wording import MOST_S, asked_wait_s, is_full, is_too_fast

ASKED = [
    ("451 4.7.1 Greylisted, try again in 5 minutes", 300),
    ("450 4.2.0 <b@x.org>: Recipient address rejected: Greylisted for 300 seconds", 300),
    (
        "450 4.2.0 <b@x.org>: Recipient address rejected: Greylisted for 5 minutes (see http://a)",
        300,
    ),
    ("450 4.2.0 Sender address rejected: Greylisted for 42 sec.", 42),
    ("451 4.7.1 Greylisting in action, please come back in 00:04:58", 298),
    ("451 4.7.1 Greylisting in action, please come back in 01:00:00", 3600),
    ("450 4.7.1 Greylisted, try again in 300 seconds", 300),
    ("451 Please try again in 15 min", 900),
    ("451 4.3.0 retry in 1 hour", 3600),
    ("421 4.7.0 Too many connections, please retry after 60 seconds", 60),
    ("421 too many connections from your host; try again after 10 mins", 600),
    ("450 4.7.1 You have exceeded 500 messages per 1 hour, try again in 20 minutes", 1200),
    ("452 4.3.1 wait at least 30 seconds before you retry", 30),
    ("451 Please wait 5 minutes and try again", 300),
    ("450 deferred for 300s", 300),
    ("450 4.7.0 retry-after: 120 seconds", 120),
    ("450 Try again later (in 2 hrs)", 7200),
    ("451 try again in an hour", 3600),
    ("451 try again in half an hour", 1800),
    ("451 try again in one minute", 60),
    ("451 4.7.1 TRY AGAIN IN 5 MINUTES", 300),
    ("451 Try again in 5 minutes and 30 seconds", 330),
    ("451 try again in 5 minute(s)", 300),
    ("451 please send the message again in 90 seconds", 90),
    ("421 4.7.28 blocked for 1 day", 86_400),
    ("451 come back in 90 days", MOST_S),
    ("451 come back in 9999999 hours", MOST_S),
    ("451 4.7.1 try again in 1.5 hours", 5400),
]
NOT_ASKED = [
    "451 4.7.1 Greylisting in action, please come back later",
    "450 Greylisted, please try again in a few moments.",
    "421 4.7.0 Try again later, closing connection",
    "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
    "450 4.7.1 500 messages in 60 minutes are too many",
    "451 Domain x.org has exceeded the max emails per hour (50/50 (100%)) allowed",
    "450 You sent too many mails from different domains in the last 10 minutes",
    "421 4.4.2 mx.example.org Error: timeout exceeded after 300 seconds",
    "452 4.2.2 The mailbox is over quota, try again tomorrow",
    "451 try again after 10:30",
    "451 try again in 5 metres",
    "451 try again in 0 seconds",
    "450 4.1.8 <a@b>: Sender address rejected: Domain not found",
    "250 try again",
    "",
]


@pytest.mark.parametrize(("text", "seconds"), ASKED)
def test_a_wait_that_is_asked_for_is_read(text: str, seconds: float) -> None:
    assert asked_wait_s(text) == seconds


@pytest.mark.parametrize("text", NOT_ASKED)
def test_other_numbers_are_no_request(text: str) -> None:
    assert asked_wait_s(text) is None


@given(st.text(max_size=2000))
def test_whatever_the_text_the_wait_is_bounded(text: str) -> None:
    found = asked_wait_s(text)
    assert found is None or 0 < found <= MOST_S
    is_full(text)


@pytest.mark.parametrize("text", ["again " * 10_000, "try the" * 10_000, "in " * 300, "9" * 60_000])
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    asked_wait_s(text)
    is_full("too many " * 1000)
    is_full("maxm" * 230 + " mail ")
    is_too_fast(text)
    is_too_fast("rate exceed max " * 70)
    assert time.process_time() - began < 0.4


@pytest.mark.parametrize(
    "text",
    [
        "421 4.7.0 Too many messages in this connection",
        "421 4.5.3 maximum of 100 messages per session reached",
        "421 limit of mails for one connection",
    ],
)
def test_a_full_connection_is_understood(text: str) -> None:
    assert is_full(text)


@pytest.mark.parametrize(
    "text", ["421 too many connections", "421 4.3.2 Service not available", "450 too many messages"]
)
def test_other_endings_say_nothing_of_messages(text: str) -> None:
    assert not is_full(text)


TOO_FAST = [
    "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP",
    "421-4.7.0 Our system has detected an unusual rate of unsolicited mail",
    "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)",
    "451 4.7.651 The mail server [192.0.2.1] has been temporarily rate limited due to its IP",
    "421 RP-001 The mail server IP connecting has exceeded the rate limit allowed",
    "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume",
    "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred",
    "450 4.7.1 Error: too much mail from 192.0.2.1",
    "451 Sender rate overlimit - 120.3 / 1h / ann@example.com",
    "451 Domain x.org has exceeded the max emails per hour (50/50 (100%)) allowed",
    "452 4.3.1 Message rate limit exceeded",
    "450 4.7.1 500 messages in 60 minutes: you are sending too fast",
    "450 Too many messages, slow down",
    "451 4.7.1 Your messages are being throttled",
    "421 4.3.2 The sending rate of your account exceeds its limit",
]
NOT_TOO_FAST = [
    "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
    "450-4.2.1 The user is receiving mail at a rate that prevents additional messages",
    "421 4.7.0 mx.example.org Error: too many connections from 192.0.2.1",
    "452 4.5.3 Error: too many recipients",
    "421 4.7.0 Too many messages in this connection",
    "450 4.7.1 Greylisted, try again in 5 minutes",
    "451 4.3.0 Temporary system problem. Try again later",
    "452 4.2.2 The mailbox is over quota",
    "450 4.1.8 <a@b>: Sender address rejected: Domain not found",
    "451 4.3.5 Server configuration problem",
    "421 4.4.2 mx.example.org Error: timeout exceeded",
    "454 4.7.0 Temporary authentication failure",
    "",
]


@pytest.mark.parametrize("text", TOO_FAST)
def test_who_is_too_fast_is_told_so(text: str) -> None:
    assert is_too_fast(text)


@pytest.mark.parametrize("text", NOT_TOO_FAST)
def test_other_refusals_slow_nobody_down(text: str) -> None:
    assert not is_too_fast(text)
