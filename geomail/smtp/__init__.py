"""The language: replies, the client's and the server's half, login, data; no socket, no clock."""
