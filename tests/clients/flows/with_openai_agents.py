"""OpenAI's Agents SDK, over responses and over chats: an agent that calls a tool, reads its result and answers."""

import asyncio
import sys
from typing import Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

root, model = sys.argv[1:]
set_tracing_disabled(True)
asked = []


@function_tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """Get the weather of a city"""
    asked.append(city)
    return '{"city": "Paris", "temperature": 21, "condition": "sunny"}'


async def main() -> None:
    client = AsyncOpenAI(base_url=f"{root}/v1", api_key="none", max_retries=0)
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        agent = Agent(
            name="forecaster",
            tools=[get_weather],
            model=kind(model=model, openai_client=client),
            model_settings=ModelSettings(
                temperature=0, tool_choice="required", parallel_tool_calls=False, max_tokens=100
            ),
        )
        asked.clear()
        result = await Runner.run(agent, "What is the weather in Paris?")
        assert len(asked) == 1, asked
        assert result.final_output, result
        # And on with the same conversation, streamed.
        conversation = [*result.to_input_list(), {"role": "user", "content": "What is the weather in Paris?"}]
        streamed = Runner.run_streamed(agent, conversation)
        kinds = [event.type async for event in streamed.stream_events()]
        assert "raw_response_event" in kinds, kinds
        assert "run_item_stream_event" in kinds, kinds
        assert len(asked) == 2, asked
        assert streamed.final_output, streamed


asyncio.run(main())
