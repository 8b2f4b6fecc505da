"""Where deliveries meet hosts: routes, lanes, sessions, and what their outcomes mean."""
