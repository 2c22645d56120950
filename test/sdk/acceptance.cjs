// Uses an official SDK against a Messages endpoint as a developer would, and prints what it got as one line of JSON.
//
// node acceptance.cjs FOLDER: FOLDER is where @anthropic-ai/sdk is installed. BASE_URL, API_KEY and WRONG_KEY come from the environment.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');

const sdk = createRequire(path.join(process.argv[2], 'package.json'))('@anthropic-ai/sdk');
const Anthropic = sdk.default ?? sdk;
const { BASE_URL: baseURL, API_KEY: apiKey, WRONG_KEY: wrongKey } = process.env;

const model = 'claude-sonnet-4-5';
const ask = (text) => ({ model, max_tokens: 256, messages: [{ role: 'user', content: text }] });
const say = (text) => ask(`[[sim ${JSON.stringify(text)}]]`);

async function main() {
  const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
  const out = {};

  const message = await client.messages.create(say('created'));
  out.create = { text: message.content[0].text, stop: message.stop_reason, usage: message.usage, type: message.type };

  const events = {};
  const stream = client.messages.stream(say('streamed, ünïcode 🚗'));
  stream.on('streamEvent', (e) => { events[e.type] = (events[e.type] ?? 0) + 1; });
  const final = await stream.finalMessage();
  out.stream = { text: final.content[0].text, stop: final.stop_reason, usage: final.usage, events };

  let raw = '';
  for await (const e of await client.messages.create({ ...say('iterated'), stream: true })) {
    if (e.type === 'content_block_delta') raw += e.delta.text;
  }
  out.iterate = { text: raw };

  const tool = await client.messages.create({
    ...ask('[[sim {"tool": "get_weather", "input": {"city": "Oslo"}}]]'),
    tools: [{ name: 'get_weather', description: 'Weather of a city', input_schema: { type: 'object', properties: { city: { type: 'string' } } } }],
  });
  out.tool = tool.content.filter((b) => b.type === 'tool_use').map((b) => ({ name: b.name, input: b.input }));

  out.countTokens = await client.messages.countTokens({ model, messages: ask('How many tokens are in here?').messages });

  out.models = [];
  for await (const m of client.models.list({ limit: 2 })) out.models.push(m.id); // page by page

  for (const [name, attempt] of Object.entries({
    wrongKey: () => new Anthropic({ baseURL, apiKey: wrongKey, maxRetries: 0 }).messages.create(ask('never')),
    badRequest: () => client.messages.create({ ...ask('never'), max_tokens: undefined }),
    overloaded: () => client.messages.create(say({ status: 529 })),
  })) {
    try {
      await attempt();
      out[name] = { status: 200 };
    } catch (e) {
      out[name] = { class: e.constructor.name, status: e.status, type: e.error?.error?.type, message: e.error?.error?.message, id: e.requestID ?? e.request_id };
    }
  }
  console.log(JSON.stringify(out));
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
