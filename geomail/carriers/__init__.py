"""Carriers: what does the tasks that are no mail, each one try of one task at a time.

requests.py makes one HTTP request, calls.py one call in a child process; neither knows Redis, nor
when a task is tried again. carriers.py and routes.py give them places and turns.
"""
