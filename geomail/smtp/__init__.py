"""The language: replies, the client's and the server's conversation, login, data; no socket, no clock."""
