"""Where deliveries meet hosts: routes, lanes, sessions, and what their outcomes mean.

Each line imports only lines below it, annotations aside:

    lanes, staffing, alarms     all lanes together: who gets a sender, and who is looked at again
    route, ranked, direct       which lane a delivery goes to
    sender, reckoning           one connection's work, and what becomes of what was begun on it
    lane, crew, ready           one host: what waits for it, who sends to it, whose turn it is
    host/                       what is known of one host, and outlives connections
    session/                    one connection: terms, the race for it, trust, wire, pump
    limits/                     how fast and how many, by its owner's will or by the host's
    dns/                        which hosts take a domain's mail
    delivery, outcome, wording  one message: to whom it is left to send, what replies mean for it
    pace, shown                 how long and how much; what people are shown of all of it
"""
