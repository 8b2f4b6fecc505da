"""The TCP door."""

import socket
from ssl import SSLContext

from geomail.config import Settings
from geomail.intake.gate import Gate, Refused
from geomail.intake.reception import Reception


class TcpDoor:
    """One line, one job, for now."""

    def __init__(self, gate: Gate, settings: Settings, tls: SSLContext | None) -> None:
        self._gate = gate
        self._reception = Reception(
            self._converse, most=settings.door_connections, farewell=b"full\n", tls=tls
        )

    def start(self, listener: socket.socket) -> None:
        """Accept."""
        self._reception.start(listener)

    def stop(self, grace_s: float) -> None:
        """Leave."""
        self._reception.stop(grace_s)

    def _converse(self, sock: socket.socket, _host: str) -> None:
        sock.settimeout(60)
        with sock.makefile("rwb") as lines:
            for line in lines:
                try:
                    self._gate.check(line)
                    [job_id] = self._gate.submit([line])
                except Refused as error:
                    lines.write(f"{error}\n".encode())
                else:
                    lines.write(f"{job_id}\n".encode())
                lines.flush()
