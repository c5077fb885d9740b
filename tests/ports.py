"""Free ports for servers that tests start."""

import random
import socket

# below the ports of outgoing connections on Linux, above those of Ray's workers
_RANGE = range(20000, 32000)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, drawn at random; another process may still take one before use.

    Raises:
        OSError: Fewer than ``count`` are free.
    """
    sockets: list[socket.socket] = []
    try:
        for port in random.sample(_RANGE, len(_RANGE)):
            if len(sockets) == count:
                break
            sock = socket.socket()
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                sock.close()
            else:
                sockets.append(sock)
        if len(sockets) < count:
            raise OSError(f"fewer than {count} ports are free in {_RANGE}")
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
