"""Synthetic chat corpus for the tiny bundled model.

Everything here is generated from the word lists below, so the corpus carries no
third-party text. Each document is either plain prose or a ChatML conversation
rendered with the same template that ships inside the model file.
"""

from __future__ import annotations

import json
import random

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Greece": "Athens",
    "Poland": "Warsaw",
    "Austria": "Vienna",
    "Hungary": "Budapest",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Ireland": "Dublin",
    "England": "London",
    "Russia": "Moscow",
    "Turkey": "Ankara",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "New Delhi",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Korea": "Seoul",
    "Australia": "Canberra",
    "Canada": "Ottawa",
    "Mexico": "Mexico City",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Brazil": "Brasilia",
    "Argentina": "Buenos Aires",
    "Cuba": "Havana",
    "Iceland": "Reykjavik",
    "Belgium": "Brussels",
    "Netherlands": "Amsterdam",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
}
CITIES = list(CAPITALS.values())
NAMES = [
    "Alice",
    "Bob",
    "Carol",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Ivy",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olivia",
    "Paul",
    "Quinn",
    "Rose",
    "Sam",
    "Tara",
    "Uma",
    "Victor",
    "Wendy",
    "Zoe",
]
ANIMALS = [
    "fox",
    "rabbit",
    "bear",
    "owl",
    "cat",
    "dog",
    "mouse",
    "horse",
    "lion",
    "wolf",
    "duck",
    "frog",
    "bee",
    "robot",
    "dragon",
]
PLACES = ["forest", "village", "garden", "river", "mountain", "castle", "city", "farm", "island", "library"]
OBJECTS = [
    "lamp",
    "key",
    "book",
    "map",
    "stone",
    "ring",
    "box",
    "bell",
    "rope",
    "mirror",
    "coin",
    "boat",
    "kite",
    "clock",
    "cup",
]
COLORS = ["red", "blue", "green", "yellow", "purple", "black", "white", "silver", "golden"]
MOODS = ["happy", "brave", "curious", "quiet", "clever", "lonely", "gentle", "proud"]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
FACTS = {
    "What color is the sky?": "The sky is blue.",
    "What color is grass?": "Grass is green.",
    "How many days are in a week?": "There are 7 days in a week.",
    "How many months are in a year?": "There are 12 months in a year.",
    "What is machine learning?": "Machine learning is a subset of artificial intelligence in which computers learn patterns from data.",
    "What is artificial intelligence?": "Artificial intelligence is the science of making machines that can reason, learn and act.",
    "What is Kubernetes?": "Kubernetes is an open source system that runs and scales containers across many machines.",
    "What is a neural network?": "A neural network is a model made of layers of simple units that learn from examples.",
    "What is a container?": "A container is a package that holds a program together with everything it needs to run.",
    "What is water made of?": "Water is made of hydrogen and oxygen.",
    "What is the largest planet?": "The largest planet is Jupiter.",
    "What is the opposite of hot?": "The opposite of hot is cold.",
    "What do bees make?": "Bees make honey.",
    "Who are you?": "I am Inferno, a tiny language model made for tests and demos.",
    "What can you do?": "I can answer simple questions, count, tell stories and call tools.",
}
PROSE = [
    "The future of AI is bright and full of possibilities. Small models will run everywhere, close to the people who use them.",
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time there was a small server that answered every question with care.",
    "Hello, world! This is a small model that runs on any machine.",
]
SYSTEMS = ["You are a helpful assistant.", "You are Inferno, a tiny assistant.", "Be brief.", "You are a kind teacher."]
PIRATE = "You speak like a pirate."

TOOLS = {
    "get_weather": {
        "description": "Get the current weather for a city",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "get_time": {
        "description": "Get the local time of a city",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "calculate": {
        "description": "Evaluate an arithmetic expression",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
    "search": {"description": "Search the web", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    "send_email": {
        "description": "Send an email",
        "properties": {"to": {"type": "string"}, "subject": {"type": "string"}},
        "required": ["to", "subject"],
    },
    "get_stock_price": {
        "description": "Get the price of a stock",
        "properties": {"symbol": {"type": "string"}},
        "required": ["symbol"],
    },
    "set_timer": {
        "description": "Start a timer",
        "properties": {"minutes": {"type": "integer"}},
        "required": ["minutes"],
    },
}

CHAT_TEMPLATE = """{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.content %}
{{- message.content }}
{%- endif %}
{%- if message.tool_calls %}
{%- for tool_call in message.tool_calls %}
{%- if not loop.first or message.content %}
{{- '\\n' }}
{%- endif %}
{%- if tool_call.function %}
{%- set tool_call = tool_call.function %}
{%- endif %}
{{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
{%- if tool_call.arguments is string %}
{{- tool_call.arguments }}
{%- else %}
{{- tool_call.arguments | tojson }}
{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
{{- '<|im_start|>user' }}
{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def tool_spec(name: str) -> dict:
    t = TOOLS[name]
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": t["description"],
            "parameters": {"type": "object", "properties": t["properties"], "required": t["required"]},
        },
    }


def render(messages: list[dict], tools: list[dict] | None = None, generation: bool = False) -> str:
    """ChatML with Hermes-style tools, the same text the Jinja template gives."""
    out = []
    if tools:
        head = messages[0]["content"] + "\n\n" if messages[0]["role"] == "system" else ""
        out.append(
            "<|im_start|>system\n"
            + head
            + "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
            + "".join("\n" + json.dumps(t) for t in tools)
            + "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
            '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
            "</tool_call><|im_end|>\n"
        )
        messages = messages[1:] if messages[0]["role"] == "system" else messages
    for m in messages:
        if m["role"] == "tool":
            out.append("<|im_start|>user\n<tool_response>\n" + m["content"] + "\n</tool_response><|im_end|>\n")
            continue
        text = m.get("content") or ""
        for c in m.get("tool_calls", []):
            text += ("\n" if text else "") + '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>' % (
                c["name"],
                json.dumps(c["arguments"]),
            )
        out.append(f"<|im_start|>{m['role']}\n{text}<|im_end|>\n")
    if generation:
        out.append("<|im_start|>assistant\n")
    return "".join(out)


def story(r: random.Random, animal: str | None = None) -> str:
    a, n, p, o = animal or r.choice(ANIMALS), r.choice(NAMES), r.choice(PLACES), r.choice(OBJECTS)
    c, m, f = r.choice(COLORS), r.choice(MOODS), r.choice(NAMES)
    art = "an" if a[0] in "aeiou" else "a"
    parts = [
        f"Once upon a time there was {art} {a} named {n} who lived in a {p}.",
        f"{n} was very {m} and loved to look for new things.",
        f"One day {n} found a {c} {o} near the {r.choice(PLACES)}.",
        r.choice(
            [
                f'"What a strange {o}," said {n}.',
                f"{n} had never seen a {o} so {r.choice(['bright', 'small', 'old', 'shiny'])} before.",
            ]
        ),
        f"A friend named {f} came by and asked what it was.",
        r.choice(
            [
                f"Together they carried the {o} home.",
                f"Together they hid the {o} under a tree.",
                f"They took turns to hold the {o}.",
            ]
        ),
        r.choice(
            [
                f"That night the {o} began to glow.",
                f"Soon the whole {p} knew about the {o}.",
                "Then it began to rain and they ran home.",
            ]
        ),
        r.choice(
            [
                f"From that day on {n} and {f} were the best of friends.",
                f"{n} smiled and went to sleep.",
                f"And {n} lived in the {p} for many happy years.",
            ]
        ),
    ]
    k = r.choice([4, 5, 6, 8])
    return " ".join(parts[: k - 1] + parts[-1:])


def poem(r: random.Random) -> str:
    o, c, p = r.choice(OBJECTS), r.choice(COLORS), r.choice(PLACES)
    return r.choice(
        [
            f"Roses are red,\nviolets are blue,\nthe {p} is {c},\nand so are you.",
            f"A {c} {o} shines,\ndeep inside the quiet {p},\nthe night listens still.",
            f"Over the {p} the moon is bright,\nthe {c} {o} sleeps tonight.",
        ]
    )


def qa(r: random.Random) -> list[tuple[str, str]]:
    """One single-turn question with its answer (returned as a list of turns)."""
    k = r.random()
    if r.random() < 0.35:  # copying is what a small model learns last, so it gets a share of its own
        k = r.choice([0.45, 0.45, 0.45, 0.90, 0.99, 0.99])
    if k < 0.16:
        country, city = r.choice(list(CAPITALS.items()))
        q = r.choice(
            [
                f"What is the capital of {country}?",
                f"What's the capital of {country}?",
                f"Name the capital of {country}.",
                f"Tell me the capital of {country}.",
            ]
        )
        return [(q, f"The capital of {country} is {city}.")]
    if k < 0.20:
        country, city = r.choice(list(CAPITALS.items()))
        return [(f"{city} is the capital of which country?", f"{city} is the capital of {country}.")]
    if k < 0.30:
        a, b = r.randint(0, 20), r.randint(0, 20)
        op = r.choice("+-")
        if op == "-" and b > a:
            a, b = b, a
        v = a + b if op == "+" else a - b
        q = r.choice([f"What is {a} {op} {b}?", f"{a} {op} {b} = ?", f"Compute {a} {op} {b}."])
        return [(q, f"{a} {op} {b} = {v}.")]
    if k < 0.38:
        a = r.randint(0, 30)
        b = a + r.choice([3, 5, 8, 10, 15, 20, 30, 40, 60, 90])
        q = r.choice([f"Count from {a} to {b}.", f"Please count from {a} to {b}."])
        return [(q, ", ".join(str(i) for i in range(a, b + 1)) + ".")]
    if k < 0.41:
        n = r.choice([5, 10, 20, 50, 100])
        return [(f"Count to {n}.", ", ".join(str(i) for i in range(1, n + 1)) + ".")]
    if k < 0.50:
        words = [
            r.choice(r.choice([COLORS, OBJECTS, ANIMALS, NUMBERS, PLACES, NAMES])) for _ in range(r.randint(1, 12))
        ]
        t = " ".join(words)
        return [(r.choice([f"Repeat after me: {t}", f"Say this: {t}", f"Repeat: {t}"]), t)]
    if k < 0.60:
        q, a = r.choice(list(FACTS.items()))
        return [(q, a)]
    if k < 0.70:
        a = r.choice(ANIMALS)
        art = "an" if a[0] in "aeiou" else "a"
        return [
            (
                r.choice(
                    [
                        f"Tell me a story about {art} {a}.",
                        f"Write a story about {art} {a}.",
                        f"Tell a short story about {art} {a}.",
                    ]
                ),
                story(r, a),
            )
        ]
    if k < 0.73:
        return [(r.choice(["Write a poem", "Write a poem.", "Write a haiku", "Write a haiku."]), poem(r))]
    if k < 0.78:
        return [
            (
                r.choice(["Hello!", "Hi!", "Hello", "Hey there!", "Good morning!"]),
                r.choice(["Hello! How can I help you today?"]),
            )
        ]
    if k < 0.82:
        w = r.choice(ANIMALS + OBJECTS + COLORS)
        return [(r.choice([f"Spell {w}.", f"How do you spell {w}?"]), "-".join(w) + ".")]
    if k < 0.88:
        n, age = r.choice(NAMES), r.randint(18, 90)
        c = r.choice(COLORS)
        if r.random() < 0.5:
            return [(f"Give me a JSON object with name {n} and age {age}.", json.dumps({"name": n, "age": age}))]
        return [
            (
                f"Give me a JSON object with name {n}, age {age} and color {c}.",
                json.dumps({"name": n, "age": age, "color": c}),
            )
        ]
    if k < 0.95:
        n = r.choice(NAMES)
        mid = qa(r) if r.random() < 0.5 else []
        hello = r.choice(
            [
                (f"Hi, my name is {n}.", f"Hello {n}! How can I help you today?"),
                (f"My name is {n}.", f"Nice to meet you, {n}!"),
            ]
        )
        return [hello, *mid, ("What is my name?", f"Your name is {n}.")]
    keys = r.sample(OBJECTS + ANIMALS, r.randint(2, 6))
    codes = {w: r.randint(10, 99) for w in keys}
    w = r.choice(keys)
    q = " ".join(f"The code of the {x} is {y}." for x, y in codes.items()) + f" What is the code of the {w}?"
    return [(q, f"The code of the {w} is {codes[w]}.")]


def tool_chat(r: random.Random) -> str:
    k = r.random()
    city, other = r.sample(CITIES, 2)
    extra: list[tuple[str, str]] = []
    if k < 0.35:
        name, q, args = (
            "get_weather",
            r.choice(
                [
                    f"What is the weather in {city}?",
                    f"What's the weather like in {city}?",
                    f"How is the weather in {city} today?",
                ]
            ),
            {"city": city},
        )
        t = r.randint(-5, 35)
        w = r.choice(["sunny", "cloudy", "rainy", "windy"])
        resp, final = json.dumps({"temperature": t, "condition": w}), f"It is {w} and {t} degrees in {city}."
    elif k < 0.50:
        name, q, args = (
            "get_time",
            r.choice([f"What time is it in {city}?", f"Tell me the time in {city}."]),
            {"city": city},
        )
        h = f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}"
        resp, final = json.dumps({"time": h}), f"It is {h} in {city}."
    elif k < 0.65:
        a, b, op = r.randint(2, 99), r.randint(2, 99), r.choice("+-*")
        name, q, args = (
            "calculate",
            r.choice([f"Calculate {a} {op} {b}.", f"Use the calculator for {a} {op} {b}."]),
            {"expression": f"{a} {op} {b}"},
        )
        v = str(eval(f"{a}{op}{b}"))
        resp, final = json.dumps({"result": v}), f"The result is {v}."
    elif k < 0.72:
        w = r.choice(ANIMALS + OBJECTS)
        name, q, args = "search", r.choice([f"Search the web for {w}.", f"Look up {w} on the web."]), {"query": w}
        resp, final = json.dumps({"hits": 3}), f"I found 3 results for {w}."
    elif k < 0.79:
        n = r.choice(NAMES)
        s = r.choice(["Hello", "Lunch", "Meeting", "News"])
        name, q, args = "send_email", f"Send an email to {n} about {s}.", {"to": n, "subject": s}
        resp, final = json.dumps({"sent": True}), f"I sent the email to {n}."
    elif k < 0.86:
        m = r.randint(1, 90)
        name, q, args = (
            "set_timer",
            r.choice([f"Set a timer for {m} minutes.", f"Start a {m} minute timer."]),
            {"minutes": m},
        )
        resp, final = json.dumps({"ok": True}), f"The timer runs for {m} minutes."
    else:
        name, q, args = "get_weather", f"What is the weather in {city} and in {other}?", {"city": city}
        extra = [("get_weather", json.dumps({"city": other}))]
        resp, final = "", ""
    offered = [name] + [n for n in r.sample(list(TOOLS), r.choice([0, 1, 2, 3])) if n != name]
    r.shuffle(offered)
    msgs: list[dict] = []
    if r.random() < 0.4:
        msgs.append({"role": "system", "content": r.choice(SYSTEMS)})
    if r.random() < 0.2:  # tools are offered, and the question needs none
        for u, a in qa(r):
            msgs += [{"role": "user", "content": u}, {"role": "assistant", "content": a}]
        return render(msgs, [tool_spec(n) for n in offered])
    calls = [{"name": name, "arguments": args}] + [{"name": n, "arguments": json.loads(a)} for n, a in extra]
    msgs += [{"role": "user", "content": q}, {"role": "assistant", "tool_calls": calls}]
    if not extra:
        msgs += [{"role": "tool", "content": resp}, {"role": "assistant", "content": final}]
    return render(msgs, [tool_spec(n) for n in offered])


def document(r: random.Random) -> str:
    k = r.random()
    if k < 0.12:
        return r.choice(
            [story(r), r.choice(PROSE), " ".join([r.choice(list(FACTS.values())), r.choice(PROSE)]), poem(r)]
        )
    if k < 0.34:
        return tool_chat(r)
    msgs: list[dict] = []
    pirate = False
    s = r.random()
    if s < 0.35:
        msgs.append({"role": "system", "content": r.choice(SYSTEMS)})
    elif s < 0.45:
        msgs.append({"role": "system", "content": PIRATE})
        pirate = True
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        for u, a in qa(r):
            msgs += [{"role": "user", "content": u}, {"role": "assistant", "content": ("Arr! " + a) if pirate else a}]
    return render(msgs)


def documents(seed: int):
    r = random.Random(seed)
    while True:
        yield document(r)
