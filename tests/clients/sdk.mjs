// The official TypeScript SDK against a server: prints one JSON object of what it saw.
// Run as: node sdk.mjs FOLDER-WITH-NODE_MODULES BASE_URL MODEL
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, baseURL, model] = process.argv.slice(2);
const entry = createRequire(join(folder, 'package.json')).resolve('@anthropic-ai/sdk');
const { default: Anthropic } = await import(pathToFileURL(entry));

const client = new Anthropic({ apiKey: 'not-a-real-key', baseURL, maxRetries: 0 });
const hello = { model, max_tokens: 16, messages: [{ role: 'user', content: 'Say hello.' }] };
const seen = {};

const message = await client.messages.create(hello);
seen.create = { text: message.content[0].text, usage: message.usage, id: message._request_id };

const stream = client.messages.stream(hello);
let text = '';
stream.on('text', (piece) => { text += piece; });
const final = await stream.finalMessage();
seen.stream = { text, final: final.content[0].text, stop_reason: final.stop_reason };

seen.events = [];
for await (const event of await client.messages.create({ ...hello, stream: true })) {
  seen.events.push(event.type);
}

seen.count = await client.messages.countTokens({ model, messages: hello.messages });

seen.models = [];
for await (const entry of client.models.list({ limit: 1 })) seen.models.push(entry.id);
seen.retrieved = (await client.models.retrieve(seen.models[0])).id;

async function errorOf(change) {
  try {
    await client.messages.create({ ...hello, ...change });
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, id: error.requestID,
             type: error.error?.error?.type };
  }
}
seen.errors = {
  max_tokens: await errorOf({ max_tokens: -1 }),
  model: await errorOf({ model: 'no-such-model' }),
};

const controller = new AbortController();
const aborted = client.messages.stream({ ...hello, max_tokens: 4000 },
                                       { signal: controller.signal });
aborted.on('text', () => controller.abort());
seen.aborted = await aborted.finalMessage().then(() => false, (error) => error.constructor.name);

console.log(JSON.stringify(seen));
