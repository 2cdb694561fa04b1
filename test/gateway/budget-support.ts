import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Attribution } from '../../contracts/attribution.ts';
import type { Pool } from '../../db/pool.ts';
import { insertBudget, type BudgetDraft, type BudgetRow } from '../../db/queries/budgets.ts';
import type { Protocol } from '../../gateway/protocol.ts';

/** A pool of the test's team. */
export function makeBudget(
  pool: Pool,
  scope: [BudgetDraft['scopeKind'], string],
  more: Partial<BudgetDraft> = {},
): Promise<BudgetRow> {
  return insertBudget(pool, {
    teamId: 'team',
    createdBy: 'user',
    name: `${scope[0]} budget`,
    scopeKind: scope[0],
    scopeId: scope[1],
    period: 'total',
    hardLimitMicros: null,
    softLimitMicros: null,
    thresholds: [50, 80, 100],
    degradeTo: null,
    degradeAtPercent: null,
    ...more,
  });
}

export interface WindowSum {
  spent: number;
  reserved: number;
}

/** What a pool has spent and holds, over all its windows. */
export async function windowOf(pool: Pool, budgetId: string): Promise<WindowSum> {
  const result = await pool.query<WindowSum>(
    `SELECT coalesce(sum(spent_micros), 0)::bigint AS spent, coalesce(sum(reserved_micros), 0)::bigint AS reserved
     FROM budget_windows WHERE budget_id = $1`,
    [budgetId],
  );
  return result.rows[0]!;
}

/** Nobody holds money or has a call noted. */
export async function isAllReleased(pool: Pool): Promise<boolean> {
  const result = await pool.query<{ held: number; slices: number; intents: number }>(
    `SELECT (SELECT coalesce(sum(abs(reserved_micros)), 0)::bigint FROM budget_windows) AS held,
       (SELECT coalesce(sum(abs(reserved_micros)), 0)::bigint FROM budget_slices) AS slices,
       (SELECT count(*)::int FROM call_intents) AS intents`,
  );
  const row = result.rows[0]!;
  return row.held === 0 && row.slices === 0 && row.intents === 0;
}

export async function budgetIdOfSession(pool: Pool, sessionId: string): Promise<string> {
  const result = await pool.query<{ id: string }>('SELECT id FROM budgets WHERE scope_id = $1 AND is_managed', [
    sessionId,
  ]);
  return result.rows[0]!.id;
}

/** Pieces of a streamed answer in a protocol's words. */
export interface Wire {
  start(inputTokens: number): string;
  delta(text: string): string;
  end(inputTokens: number, outputTokens: number): string;
  whole(inputTokens: number, outputTokens: number): object;
}

const event = (name: string, data: object): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
const data = (value: object): string => `data: ${JSON.stringify(value)}\n\n`;
const message = (usage: object): object => ({
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'claude-opus-5',
  content: [],
  stop_reason: null,
  stop_sequence: null,
  usage,
});
const response = (status: string, usage: object | null): object => ({
  id: 'resp_1',
  object: 'response',
  created_at: 1,
  status,
  model: 'gpt-5.5',
  output: [],
  usage,
});
const chunk = (choices: object[], usage?: object): object => ({
  id: 'c',
  object: 'chat.completion.chunk',
  created: 1,
  model: 'gpt-5.5',
  choices,
  ...(usage === undefined ? {} : { usage }),
});

const candidate = (text: string, usage: object, finishReason?: string): object => ({
  candidates: [{ content: { parts: [{ text }], role: 'model' }, index: 0, finishReason }],
  usageMetadata: usage,
});

export const WIRES: Record<Protocol, Wire> = {
  gemini: {
    start: (input) => data(candidate('', { promptTokenCount: input, totalTokenCount: input })),
    delta: (text) => data(candidate(text, {})),
    end: (input, output) => data(candidate('', { promptTokenCount: input, candidatesTokenCount: output }, 'STOP')),
    whole: (input, output) => candidate('hi', { promptTokenCount: input, candidatesTokenCount: output }, 'STOP'),
  },
  messages: {
    start: (input) =>
      event('message_start', { type: 'message_start', message: message({ input_tokens: input, output_tokens: 1 }) }) +
      event('content_block_start', {
        type: 'content_block_start',
        index: 0,
        content_block: { type: 'text', text: '' },
      }),
    delta: (text) =>
      event('content_block_delta', { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } }),
    end: (_input, output) =>
      event('content_block_stop', { type: 'content_block_stop', index: 0 }) +
      event('message_delta', {
        type: 'message_delta',
        delta: { stop_reason: 'end_turn', stop_sequence: null },
        usage: { output_tokens: output },
      }) +
      event('message_stop', { type: 'message_stop' }),
    whole: (input, output) => ({
      ...message({ input_tokens: input, output_tokens: output }),
      stop_reason: 'end_turn',
      content: [{ type: 'text', text: 'hi' }],
    }),
  },
  chat: {
    start: () => data(chunk([{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }])),
    delta: (text) => data(chunk([{ index: 0, delta: { content: text }, finish_reason: null }])),
    end: (input, output) =>
      data(chunk([{ index: 0, delta: {}, finish_reason: 'stop' }])) +
      data(chunk([], { prompt_tokens: input, completion_tokens: output, total_tokens: input + output })) +
      'data: [DONE]\n\n',
    whole: (input, output) => ({
      id: 'c',
      object: 'chat.completion',
      created: 1,
      model: 'gpt-5.5',
      choices: [{ index: 0, message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }],
      usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output },
    }),
  },
  responses: {
    start: () => event('response.created', { type: 'response.created', response: response('in_progress', null) }),
    delta: (text) =>
      event('response.output_text.delta', {
        type: 'response.output_text.delta',
        item_id: 'i',
        output_index: 0,
        content_index: 0,
        delta: text,
      }),
    end: (input, output) =>
      event('response.completed', {
        type: 'response.completed',
        response: response('completed', {
          input_tokens: input,
          output_tokens: output,
          total_tokens: input + output,
        }),
      }),
    whole: (input, output) =>
      response('completed', { input_tokens: input, output_tokens: output, total_tokens: input + output }),
  },
};

/** A server that the test answers for. */
export async function listenAsProvider(
  answer: (req: IncomingMessage, res: ServerResponse, body: Record<string, unknown>) => void,
): Promise<{ url: string; server: Server }> {
  const server = createServer((req, res) => {
    const parts: Buffer[] = [];
    req.on('data', (part: Buffer) => parts.push(part));
    req.on('end', () => answer(req, res, JSON.parse(Buffer.concat(parts).toString('utf8')) as Record<string, unknown>));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

export function attributionOf(more: Partial<Attribution>): Attribution {
  return {
    teamId: 'team',
    userId: 'user',
    keyId: 'key',
    sessionId: null,
    rootSessionId: null,
    threadId: null,
    agentId: null,
    agentVersion: null,
    deploymentId: null,
    harness: null,
    runtime: null,
    repo: null,
    labels: [],
    trigger: null,
    ...more,
  };
}
