// Does with the TypeScript SDK in a folder what each line of its input asks for; the language of
// its lines is told in sdk_driver.py. Run as: node sdk_driver.mjs FOLDER-WITH-NODE_MODULES
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const require = createRequire(join(process.argv[2], 'package.json'));
const { default: Anthropic } = require('@anthropic-ai/sdk');
const { betaTool, betaJSONSchemaOutputFormat } =
  require('@anthropic-ai/sdk/helpers/beta/json-schema');

const PERSON = {
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer' } },
  required: ['name', 'age'],
};

const namespace = (client, beta) => (beta ? client.beta.messages : client.messages);
const shown = (message) => ({ message, request_id: message._request_id });

async function all(pages) {
  const entries = [];
  for await (const entry of pages) entries.push(entry);
  return entries;
}

function toolRunner(client, request) {
  const calls = [];
  const tool = (name, properties, run) => betaTool({
    name,
    description: `The tool ${name}.`,
    inputSchema: { type: 'object', properties, required: Object.keys(properties) },
    run: (input) => {
      calls.push([name, input]);
      return run(input);
    },
  });
  const integer = { type: 'integer' };
  const string = { type: 'string' };
  const tools = [
    tool('add', { a: integer, b: integer }, ({ a, b }) => String(a + b)),
    tool('read', { path: string }, ({ path }) => `the text of ${path}`),
    tool('fails', { why: string }, ({ why }) => { throw new Error(why); }),
  ];
  return { calls, runner: client.beta.messages.toolRunner({ ...request, tools }) };
}

const OPERATIONS = {
  async create(client, request, { beta }) {
    return shown(await namespace(client, beta).create(request));
  },
  async stream(client, request, { beta }) {
    const answer = namespace(client, beta).stream(request);
    let text = '';
    answer.on('text', (piece) => { text += piece; });
    const message = await answer.finalMessage();
    return { text, message, request_id: answer.request_id };
  },
  async events(client, request) {
    return all(await client.messages.create({ ...request, stream: true }));
  },
  async abort(client, request) {
    const controller = new AbortController();
    const answer = client.messages.stream(request, { signal: controller.signal });
    answer.on('text', () => controller.abort());
    return answer.finalMessage().then(
      () => false, (error) => error instanceof Anthropic.APIUserAbortError);
  },
  async count_tokens(client, request, { beta }) {
    return (await namespace(client, beta).countTokens(request)).input_tokens;
  },
  async models(client, request) {
    return all(client.models.list(request));
  },
  async model(client, request) {
    return client.models.retrieve(request.id);
  },
  async tool_runner(client, request) {
    const { calls, runner } = toolRunner(client, request);
    const messages = [];
    for await (const answer of runner) {
      messages.push(request.stream ? await answer.finalMessage() : answer);
    }
    return { calls, messages };
  },
  async parse(client, request, { beta }) {
    const format = betaJSONSchemaOutputFormat(PERSON);
    const isNew = typeof client.messages.parse === 'function';
    const message = isNew && !beta
      ? await client.messages.parse({ ...request, output_config: { format } })
      : await client.beta.messages.parse(
        { ...request, ...(isNew ? { output_config: { format } } : { output_format: format }) });
    return { parsed: message.parsed_output, message };
  },
  async batch(client, { call, arguments: given = {} }) {
    const batches = client.messages.batches;
    const { message_batch_id: id, ...rest } = given;
    const answer = await (id === undefined ? batches[call](rest) : batches[call](id));
    return call === 'list' || call === 'results' ? all(answer) : answer;
  },
};

function described(error) {
  return {
    class: error.constructor.name,
    message: error.message,
    status: error.status,
    request_id: error.requestID,
    type: error.error?.error?.type,
  };
}

async function answerTo(command) {
  const start = performance.now();
  const { base_url: baseURL, api_key: apiKey, auth_token: authToken, max_retries: maxRetries,
          timeout, default_headers: defaultHeaders } = command.client;
  const client = new Anthropic({
    baseURL, apiKey, authToken, maxRetries, defaultHeaders,
    timeout: timeout === undefined ? undefined : timeout * 1000,
  });
  let answer;
  try {
    answer = { ok: await OPERATIONS[command.op](client, command.request, command.more ?? {}) };
  } catch (error) {
    if (!(error instanceof Anthropic.AnthropicError)) throw error;
    answer = { error: described(error) };
  }
  return { ...answer, seconds: (performance.now() - start) / 1000 };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answerTo(JSON.parse(line)))}\n`);
}
