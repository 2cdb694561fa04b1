// An agent that speaks ACP over standard input and output with the official library, as those of vendors do: it has
// sessions on disk below HOME, a shell that asks first, tools of MCP servers, and asks a model on the chat protocol.
//   OPENAI_BASE_URL, OPENAI_API_KEY   where the model is
//   FAKE_ACP                          words: `hides-errors` ends turns as successes although the model failed,
//                                     `stops-when-refused` ends a turn at a refusal, `always-first` lists "always" first,
//                                     `asks-unknown` asks the client what no client knows
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { agent, methods, ndJsonStream, PROTOCOL_VERSION, RequestError } from '@agentclientprotocol/sdk';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { EnvHttpProxyAgent, setGlobalDispatcher } from 'undici';

const { HOME = '/tmp', OPENAI_BASE_URL = '', OPENAI_API_KEY = '', FAKE_ACP = '' } = process.env;
const ways = new Set(FAKE_ACP.split(' '));
const folder = `${HOME}/sessions`;
const TRIES = 3;
const BASH = {
  type: 'function',
  function: {
    name: 'bash',
    description: 'Runs a command.',
    parameters: { type: 'object', properties: { command: { type: 'string' } }, required: ['command'] },
  },
};

// Inside a sandbox the broker is the only way out.
setGlobalDispatcher(new EnvHttpProxyAgent());

/** @type {Map<string, any>} */
const sessions = new Map();

const file = (id) => `${folder}/${id}.json`;

function save(session) {
  mkdirSync(folder, { recursive: true });
  const { id, model, messages } = session;
  writeFileSync(`${file(id)}.new`, JSON.stringify({ id, model, messages }));
  renameSync(`${file(id)}.new`, file(id));
}

function modelOption(session) {
  const options = ['scripted', session.model].map((value) => ({ value, name: value }));
  return [{ id: 'model', name: 'Model', category: 'model', type: 'select', currentValue: session.model, options }];
}

async function remember(session, { cwd, mcpServers }) {
  sessions.set(session.id, session);
  session.cwd = cwd;
  session.remote = new Map();
  for (const { type, name, url, headers } of mcpServers) {
    if (type !== 'http') throw RequestError.invalidParams({ name });
    const client = new Client({ name: 'acp-agent', version: '1' });
    const init = { headers: Object.fromEntries(headers.map((header) => [header.name, header.value])) };
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: init }));
    for (const tool of (await client.listTools()).tools) {
      session.remote.set(`mcp_${name}_${tool.name}`, { client, tool, name: `mcp_${name}_${tool.name}` });
    }
  }
}

/** Calls that never came to an end have one for the model. */
function settle(session, words) {
  const { messages } = session;
  const answered = new Set(messages.map((message) => message.tool_call_id));
  const open = messages.flatMap((message) => message.tool_calls ?? []).filter(({ id }) => !answered.has(id));
  for (const { id } of open) messages.push({ role: 'tool', tool_call_id: id, content: words });
}

async function* eventsOf(body) {
  let rest = '';
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    rest += chunk;
    for (let end = rest.indexOf('\n\n'); end !== -1; end = rest.indexOf('\n\n')) {
      const data = rest.slice(0, end).replace(/^data: /, '');
      rest = rest.slice(end + 2);
      if (data === '[DONE]') return;
      yield JSON.parse(data);
    }
  }
  throw new Error('the stream ended before its end');
}

/** One answer of the model, told in pieces; what cannot be retried is thrown as the client sees it. */
async function ask(session, turn) {
  const instructions = `${HOME}/AGENTS.md`;
  const system = existsSync(instructions) ? [{ role: 'system', content: readFileSync(instructions, 'utf8') }] : [];
  const remote = [...session.remote.values()].map(({ name, tool }) => ({
    type: 'function',
    function: { name, description: tool.description, parameters: tool.inputSchema },
  }));
  const body = JSON.stringify({
    model: session.model,
    stream: true,
    stream_options: { include_usage: true },
    messages: [...system, ...session.messages],
    tools: [BASH, ...remote],
  });
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(`${OPENAI_BASE_URL}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${OPENAI_API_KEY}`, 'content-type': 'application/json' },
      body,
      signal: turn.signal,
    });
    if (response.ok) return read(response, turn);
    const text = await response.text();
    const again = response.status === 429 || response.status >= 500;
    if (!again || tries >= TRIES) {
      throw new RequestError(-32603, `API error ${response.status}`, { httpStatus: response.status, body: text });
    }
    await delay(100, undefined, { signal: turn.signal });
  }
}

async function read(response, turn) {
  const message = { role: 'assistant', content: '' };
  try {
    for await (const { choices, usage } of eventsOf(response.body)) {
      if (usage) {
        turn.usage.inputTokens += usage.prompt_tokens;
        turn.usage.outputTokens += usage.completion_tokens;
      }
      const delta = choices?.[0]?.delta ?? {};
      if (delta.reasoning_content) {
        await turn.update({
          sessionUpdate: 'agent_thought_chunk',
          content: { type: 'text', text: delta.reasoning_content },
        });
      }
      if (delta.content) {
        message.content += delta.content;
        await turn.update({ sessionUpdate: 'agent_message_chunk', content: { type: 'text', text: delta.content } });
      }
      for (const { index, id, function: part } of delta.tool_calls ?? []) {
        message.tool_calls ??= [];
        message.tool_calls[index] ??= { id, type: 'function', function: { name: part.name, arguments: '' } };
        message.tool_calls[index].function.arguments += part.arguments ?? '';
      }
    }
  } catch (error) {
    // What was said before it was cancelled stays said.
    if (turn.signal.aborted) return message;
    throw new RequestError(-32603, 'the answer of the model is no event stream', { reason: error.message });
  }
  return message;
}

function bash(session, command, signal) {
  const child = spawn('bash', ['-c', command], { cwd: session.cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const kill = () => process.kill(-Number(child.pid), 'SIGKILL');
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  signal.addEventListener('abort', kill, { once: true });
  return new Promise((resolve) => {
    child.once('close', (code) => {
      signal.removeEventListener('abort', kill);
      resolve({ output, failed: code !== 0 });
    });
  });
}

/** Asks, runs and tells of one call; returns what the model is shown. */
async function call(session, turn, { id, function: { name, arguments: given } }) {
  const input = JSON.parse(given);
  const remote = session.remote.get(name);
  const what = {
    toolCallId: id,
    title: remote === undefined ? input.command : name,
    kind: remote === undefined ? 'execute' : 'other',
    ...(remote === undefined ? {} : { name }),
    rawInput: input,
  };
  await turn.update({ sessionUpdate: 'tool_call', status: 'pending', ...what });
  const options = [
    { optionId: 'once', name: 'Allow', kind: 'allow_once' },
    { optionId: 'always', name: 'Always', kind: 'allow_always' },
    { optionId: 'no', name: 'Reject', kind: 'reject_once' },
  ];
  if (ways.has('always-first')) options.reverse();
  const { outcome } = await turn.client.request(methods.client.session.requestPermission, {
    sessionId: session.id,
    toolCall: what,
    options,
  });
  if (outcome.outcome === 'cancelled' || turn.signal.aborted) return { text: 'The call was cancelled.', failed: true };
  if (outcome.optionId === 'always') throw new Error('nobody allows anything for ever');
  if (outcome.optionId === 'no') {
    turn.isRefused = true;
    return { text: 'The user refused this call.', failed: true };
  }
  await turn.update({ sessionUpdate: 'tool_call_update', toolCallId: id, status: 'in_progress' });
  if (remote === undefined) {
    const { output, failed } = await bash(session, input.command, turn.signal);
    return { text: output, failed };
  }
  const request = { name: remote.tool.name, arguments: input };
  const { content, isError } = await remote.client.callTool(request, { signal: turn.signal, timeout: 2 ** 30 });
  return { text: content.map((block) => block.text ?? '').join(''), failed: isError === true };
}

async function act(session, turn, each) {
  const { text: shown, failed } = await call(session, turn, each).catch((error) => {
    if (!turn.signal.aborted) throw error;
    return { text: '', failed: true };
  });
  const text = turn.signal.aborted ? `The call was cancelled. ${shown}` : shown;
  const content = [{ type: 'content', content: { type: 'text', text } }];
  const status = failed ? 'failed' : 'completed';
  await turn.update({ sessionUpdate: 'tool_call_update', toolCallId: each.id, status, content });
  return { role: 'tool', tool_call_id: each.id, content: text };
}

async function run(session, turn) {
  for (;;) {
    const message = await ask(session, turn);
    if (message.content !== '' || message.tool_calls !== undefined) session.messages.push(message);
    save(session);
    if (turn.signal.aborted) return 'cancelled';
    if (message.tool_calls === undefined) return 'end_turn';
    const results = await Promise.all(message.tool_calls.map((each) => act(session, turn, each)));
    session.messages.push(...results);
    save(session);
    if (turn.signal.aborted) return 'cancelled';
    if (turn.isRefused && ways.has('stops-when-refused')) return 'end_turn';
  }
}

async function prompt({ params, client }) {
  const session = sessions.get(params.sessionId);
  if (session === undefined) throw RequestError.resourceNotFound(params.sessionId);
  session.cancel = new AbortController();
  const { signal } = session.cancel;
  const update = (change) => client.notify(methods.client.session.update, { sessionId: session.id, update: change });
  const turn = { client, signal, update, usage: { inputTokens: 0, outputTokens: 0 }, isRefused: false };
  settle(session, 'The call was interrupted.');
  session.messages.push({ role: 'user', content: params.prompt.map((block) => block.text ?? '').join('') });
  save(session);
  if (ways.has('asks-unknown')) {
    const refused = await client.request('fake/drain', {}).then(
      () => undefined,
      (error) => error.code,
    );
    if (refused !== -32601) throw new Error('an unknown request was answered');
  }
  try {
    const stopReason = await run(session, turn);
    return { stopReason, usage: { ...turn.usage, totalTokens: turn.usage.inputTokens + turn.usage.outputTokens } };
  } catch (error) {
    if (signal.aborted) return { stopReason: 'cancelled' };
    if (!ways.has('hides-errors')) throw error;
    const text = `Error: ${error.message} ${JSON.stringify(error.data)}`;
    await update({ sessionUpdate: 'agent_message_chunk', content: { type: 'text', text } });
    return { stopReason: 'end_turn' };
  }
}

async function load({ params, client }) {
  if (!existsSync(file(params.sessionId))) throw RequestError.resourceNotFound(params.sessionId);
  const session = JSON.parse(readFileSync(file(params.sessionId), 'utf8'));
  await remember(session, params);
  const kinds = { user: 'user_message_chunk', assistant: 'agent_message_chunk' };
  for (const { role, content } of session.messages) {
    if (kinds[role] === undefined || content === '') continue;
    const update = { sessionUpdate: kinds[role], content: { type: 'text', text: content } };
    await client.notify(methods.client.session.update, { sessionId: session.id, update });
  }
  return { configOptions: modelOption(session) };
}

void agent({ name: 'acp-agent' })
  .onRequest(methods.agent.initialize, () => ({
    protocolVersion: PROTOCOL_VERSION,
    agentCapabilities: { loadSession: true, mcpCapabilities: { http: true }, promptCapabilities: {} },
    authMethods: [],
  }))
  .onRequest(methods.agent.session.new, async ({ params }) => {
    const session = { id: randomUUID(), model: 'scripted', messages: [] };
    await remember(session, params);
    save(session);
    return { sessionId: session.id, configOptions: modelOption(session) };
  })
  .onRequest(methods.agent.session.load, load)
  .onRequest(methods.agent.session.setConfigOption, ({ params }) => {
    const session = sessions.get(params.sessionId);
    session.model = params.value;
    save(session);
    return { configOptions: modelOption(session) };
  })
  .onRequest(methods.agent.session.prompt, prompt)
  .onNotification(methods.agent.session.cancel, ({ params }) => sessions.get(params.sessionId)?.cancel?.abort())
  .connect(ndJsonStream(Writable.toWeb(process.stdout), Readable.toWeb(process.stdin)))
  .closed.finally(() => process.exit(0));
