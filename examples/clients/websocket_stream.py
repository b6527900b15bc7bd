"""Two texts at once on one WebSocket, of which the longer one is cancelled.

Usage: python websocket_stream.py [BASE_URL [MODEL]]; pip install websocket-client
"""

import json
import sys
from collections import Counter

from websocket import create_connection

base = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
model = sys.argv[2] if len(sys.argv) > 2 else "inferno-tiny"
socket = create_connection(base.replace("http", "ws", 1) + "/ws/stream")


def say(**message: object) -> None:
    socket.send(json.dumps(message))


def ask(name: str, prompt: str, **params: object) -> None:
    say(
        type="inference",
        id=name,
        model=model,
        prompt=prompt,
        params={"accumulated": False, **params},  # without it each message repeats the text so far
        flow_control={"ack": True, "window": 8},  # at most 8 messages on their way
    )


ask("short", "The capital of France is", max_tokens=8)
ask("long", "Once upon a time", max_tokens=2000, ignore_eos=True)
texts = {"short": "", "long": ""}
received: Counter[str] = Counter()
cancelled = False
while texts:
    message = json.loads(socket.recv())
    name = message["request_id"]
    match message["type"]:
        case "token":
            texts[name] += message["token"]
            received[name] += 1
            say(type="ack", request_id=name, received=received[name])
            if name == "long" and received[name] == 20 and not cancelled:
                cancelled = True
                say(type="cancel", request_id=name)
        case "complete":
            print(f"{name} ({message['finish_reason']}, {message['total_tokens']} tokens): {texts.pop(name)!r}")
        case "error":
            sys.exit(message["error"]["message"])
socket.close()
