"""What is known of one host: whether it is well, how many connections it takes, and its ways.

It outlives connections and failures; nothing here connects, and nothing in a mail's way waits.
"""
