import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { placeBreakpoints, promptCacheMinimumTokens } from '../../contracts/caching.ts';
import { responseKey, type KeyFacts } from '../../gateway/cache/key.ts';

type Json = Record<string, unknown>;

const ttl = fc.constantFrom('5m' as const, '1h' as const);
/** Mostly unmarked, as requests are; sometimes with marks of the caller's own. */
const marked = (block: fc.Arbitrary<Json>): fc.Arbitrary<Json> =>
  fc.oneof(
    { weight: 4, arbitrary: block },
    {
      weight: 1,
      arbitrary: fc.tuple(block, fc.option(ttl)).map(([value, life]) => ({
        ...value,
        cache_control: { type: 'ephemeral', ...(life === null ? {} : { ttl: life }) },
      })),
    },
  );
const text = fc.oneof({ weight: 9, arbitrary: fc.string({ minLength: 1 }) }, { weight: 1, arbitrary: fc.constant('') });
const textBlock = text.map((value): Json => ({ type: 'text', text: value }));
const block = fc.oneof(
  marked(textBlock),
  marked(fc.string().map((id): Json => ({ type: 'tool_use', id, name: 'bash', input: {} }))),
  marked(
    fc
      .tuple(fc.string(), fc.array(marked(textBlock), { maxLength: 2 }))
      .map(([id, content]): Json => ({ type: 'tool_result', tool_use_id: id, content })),
  ),
  fc.constant<Json>({ type: 'thinking', thinking: 'hm', signature: 's' }),
);
const message = fc.record({
  role: fc.constantFrom('user', 'assistant'),
  content: fc.oneof(text, fc.array(block, { maxLength: 4 })),
});
const tool = marked(fc.record({ name: fc.string(), defer_loading: fc.boolean() }));
const request: fc.Arbitrary<Json> = fc.record(
  {
    model: fc.constant('claude-opus-5'),
    tools: fc.array(tool, { maxLength: 4 }),
    system: fc.oneof(text, fc.array(marked(textBlock), { maxLength: 3 })),
    messages: fc.array(message, { maxLength: 5 }),
    cache_control: fc.constant({ type: 'ephemeral' }),
  },
  { requiredKeys: ['model', 'messages'] },
);

/** Lifetimes of all marks in the order in which a provider sees them, found without the code under test. */
function marksOf(body: Json): string[] {
  const found: string[] = [];
  const note = (value: unknown): void => {
    const control = (value as Json)['cache_control'] as { ttl?: string } | undefined;
    if (control !== undefined) found.push(control.ttl ?? '5m');
  };
  const blocks = (value: unknown): void => {
    if (!Array.isArray(value)) return;
    for (const item of value as Json[]) {
      blocks(item['content']);
      note(item);
    }
  };
  blocks(body['tools']);
  blocks(body['system']);
  for (const item of body['messages'] as Json[]) blocks(item['content']);
  note(body);
  return found;
}
const isOrdered = (marks: string[]): boolean => !marks.join(' ').includes('5m 1h');

function withoutMarks(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMarks);
  if (typeof value !== 'object' || value === null) return value;
  const { cache_control: _mark, ...rest } = value as Json;
  if (typeof rest['content'] === 'string') rest['content'] = [{ type: 'text', text: rest['content'] }];
  if (typeof rest['system'] === 'string') rest['system'] = [{ type: 'text', text: rest['system'] }];
  return Object.fromEntries(Object.entries(rest).map(([name, inner]) => [name, withoutMarks(inner)]));
}

describe('placeBreakpoints', () => {
  it('never makes more than four, and only adds', () => {
    fc.assert(
      fc.property(request, ttl, (body, life) => {
        const before = marksOf(body);
        const after = marksOf(placeBreakpoints(body, life));
        expect(after.length).toBeLessThanOrEqual(Math.max(4, before.length));
        expect(after.length).toBeGreaterThanOrEqual(before.length);
        expect(withoutMarks(placeBreakpoints(body, life))).toEqual(withoutMarks(body));
      }),
      { numRuns: 1_000 },
    );
  });

  it('keeps longer-lived ones first wherever the caller had them so', () => {
    fc.assert(
      fc.property(request, ttl, (body, life) => {
        fc.pre(isOrdered(marksOf(body)));
        expect(isOrdered(marksOf(placeBreakpoints(body, life)))).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  it('changes nothing the second time', () => {
    fc.assert(
      fc.property(request, ttl, (body, life) => {
        const once = placeBreakpoints(body, life);
        // Free places may be filled with what was not wanted before; a request without the caller's marks has none left.
        fc.pre(marksOf(body).length === 0);
        expect(placeBreakpoints(once, life)).toEqual(once);
      }),
    );
  });

  it('never marks thoughts, empty text or tools that are loaded later', () => {
    fc.assert(
      fc.property(request, ttl, (body, life) => {
        const clean = withoutMarks(body) as Json;
        const placed = placeBreakpoints(clean, life);
        expect(JSON.stringify(placed)).not.toMatch(/"type":"thinking"[^}]*"cache_control"/);
        expect(JSON.stringify(placed)).not.toMatch(/"text":"","cache_control"/);
        for (const item of (placed['tools'] ?? []) as Json[]) {
          if (item['defer_loading'] === true) expect(item).not.toHaveProperty('cache_control');
        }
      }),
    );
  });

  it('takes tools, system, memory and the newest message in this order', () => {
    const body = {
      tools: [{ name: 'a' }, { name: 'b' }],
      system: [
        { type: 'text', text: 'you are' },
        { type: 'text', text: 'memory' },
      ],
      messages: [
        { role: 'user', content: 'one' },
        { role: 'assistant', content: 'two' },
        { role: 'user', content: 'three' },
      ],
    };
    const mark = { type: 'ephemeral' };
    const long = { type: 'ephemeral', ttl: '1h' };
    expect(placeBreakpoints(body, '1h')).toEqual({
      tools: [{ name: 'a' }, { name: 'b', cache_control: long }],
      system: [
        { type: 'text', text: 'you are', cache_control: long },
        { type: 'text', text: 'memory', cache_control: long },
      ],
      messages: [
        { role: 'user', content: 'one' },
        { role: 'assistant', content: 'two' },
        { role: 'user', content: [{ type: 'text', text: 'three', cache_control: mark }] },
      ],
    });
    // Without memory the fourth goes to the user message before.
    const { messages } = placeBreakpoints({ ...body, system: 'you are' }, '5m');
    expect(messages[0]).toEqual({ role: 'user', content: [{ type: 'text', text: 'one', cache_control: mark }] });
  });
});

describe('promptCacheMinimumTokens', () => {
  it.each([
    ['claude-opus-5', 512],
    ['anthropic/claude-opus-5', 512],
    ['claude-opus-5-20261001', 512],
    ['claude-opus-5@20261001', 512],
    ['claude-fable-5', 512],
    ['claude-mythos-5', 512],
    ['claude-sonnet-5', 1_024],
    ['claude-sonnet-4-6', 1_024],
    ['claude-sonnet-4-20250514', 1_024],
    ['claude-opus-4-8', 1_024],
    ['claude-opus-4-1', 1_024],
    ['gpt-5', 1_024],
    ['claude-opus-4-7', 2_048],
    ['claude-opus-4-5-20251101', 4_096],
    ['claude-opus-4-6', 4_096],
    ['claude-haiku-4-5', 4_096],
    ['claude-opus-5-5', undefined],
    ['qwen3:8b', undefined],
  ])('%s: %s', (model, tokens) => {
    expect(promptCacheMinimumTokens(model)).toBe(tokens);
  });
});

const FACTS: KeyFacts = {
  protocol: 'messages',
  model: 'claude-opus-5',
  isStream: false,
  teamId: 'team',
  promptVersion: '1',
  headers: {},
};

/** The same JSON with the fields of every object in another order. */
function shuffled(value: unknown, seed: number): unknown {
  if (Array.isArray(value)) return value.map((item) => shuffled(item, seed));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, inner]): [string, unknown] => [name, shuffled(inner, seed)]);
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a + seed > b + seed === (seed % 2 === 0) ? 1 : -1)));
}

const conversation = (a: string, b: string, answered: string): Json => ({
  messages: [
    {
      role: 'assistant',
      content: [
        { type: 'tool_use', id: a, name: 'bash', input: { id: 'kept' } },
        { type: 'tool_use', id: b, name: 'bash', input: {} },
      ],
    },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: answered, content: 'out' }] },
  ],
});

const chat = (id: string, input: string): Json => ({
  messages: [
    { role: 'assistant', tool_calls: [{ id, type: 'function', function: { name: 'f', arguments: input } }] },
    { role: 'tool', tool_call_id: id, content: 'out' },
  ],
});

// What a tool is given is content, ids and all.
const given = (id: string): Json => ({
  messages: [{ role: 'assistant', content: [{ type: 'tool_use', id: 't', name: 'f', input: { id } }] }],
});

describe('responseKey', () => {
  const body = fc.record({
    max_tokens: fc.nat(),
    temperature: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
    system: fc.string({ unit: 'grapheme' }),
    messages: fc.array(message, { maxLength: 4 }),
    tools: fc.array(fc.record({ name: fc.string(), input_schema: fc.dictionary(fc.string(), fc.jsonValue()) }), {
      maxLength: 3,
    }),
  });

  it('does not depend on the order of fields, on who asks, nor on cache marks', () => {
    fc.assert(
      fc.property(body, fc.nat(), fc.string(), ttl, (asked, seed, who, life) => {
        const key = responseKey(FACTS, asked);
        expect(key).toMatch(/^whole\/[0-9a-f]{64}$/);
        expect(responseKey(FACTS, shuffled(asked, seed) as Json)).toBe(key);
        const disguised = { ...asked, stream: seed % 2 === 0, metadata: { user_id: who }, user: who, model: who };
        expect(responseKey(FACTS, disguised)).toBe(key);
        expect(responseKey(FACTS, placeBreakpoints(asked, life))).toBe(key);
      }),
    );
  });

  it('counts ids by their order, not by their letters', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 4, maxLength: 4 }), (ids) => {
        const [a = '', b = '', c = '', d = ''] = ids;
        const key = responseKey(FACTS, conversation(a, b, a));
        expect(responseKey(FACTS, conversation(c, d, c))).toBe(key);
        expect(responseKey(FACTS, conversation(a, b, b))).not.toBe(key);
      }),
    );
    expect(responseKey(FACTS, chat('call_1', '{}'))).toBe(responseKey(FACTS, chat('call_2', '{}')));
    expect(responseKey(FACTS, chat('call_1', '{}'))).not.toBe(responseKey(FACTS, chat('call_1', '{"id":1}')));
    expect(responseKey(FACTS, given('a'))).not.toBe(responseKey(FACTS, given('b')));
  });

  it('differs by all that can change the answer', () => {
    const asked = { messages: [{ role: 'user', content: 'hi' }], max_tokens: 5 };
    const keys = [
      responseKey(FACTS, asked),
      responseKey({ ...FACTS, teamId: 'other' }, asked),
      responseKey({ ...FACTS, promptVersion: '2' }, asked),
      responseKey({ ...FACTS, model: 'claude-sonnet-5' }, asked),
      responseKey({ ...FACTS, isStream: true }, asked),
      responseKey({ ...FACTS, protocol: 'chat' }, asked),
      responseKey({ ...FACTS, headers: { 'anthropic-beta': 'x' } }, asked),
      responseKey(FACTS, { ...asked, max_tokens: 6 }),
      responseKey(FACTS, { ...asked, system: 'x' }),
      responseKey(FACTS, { ...asked, tools: [{ name: 'x' }] }),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });

  it.each([
    [{ previous_response_id: 'resp_1' }],
    [{ conversation: 'conv_1' }],
    [{ background: true }],
    [{ container: 'c_1' }],
    [{ store: true }],
    [{ input: [{ type: 'item_reference', id: 'x' }] }],
  ])('has none for %j: the provider keeps a part of the question', (extra) => {
    expect(responseKey({ ...FACTS, protocol: 'responses' }, { input: 'hi', store: false, ...extra })).toBeUndefined();
  });
});
