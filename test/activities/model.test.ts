import { describe, expect, it } from 'vitest';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import { MessagesReader, messagesBody } from '../../activities/model/anthropic-messages.ts';
import { ChatReader, chatBody } from '../../activities/model/openai-chat.ts';
import { judge } from '../../activities/model/policy.ts';
import type { Prompt } from '../../activities/model/prompt.ts';
import { inputProblem } from '../../contracts/tool-inputs.ts';
import { toolDefinitions } from '../../contracts/agent-tools.ts';

const AGENT: AgentDefinition = {
  name: 'a',
  description: null,
  model: { id: 'scripted' },
  system: 'Be brief.',
  tools: [
    { type: 'custom', name: 'zeta', description: 'z', input_schema: { type: 'object' } },
    {
      type: 'agent_toolset_20260401',
      default_config: { enabled: true, permission_policy: { type: 'auto' } },
      configs: [
        { type: 'bash', name: 'bash', enabled: true, permission_policy: { type: 'always_ask' } },
        { type: 'glob', name: 'glob', enabled: false, permission_policy: { type: 'always_allow' } },
      ],
    },
    { type: 'custom', name: 'alpha', description: 'a', input_schema: { type: 'object' } },
  ],
  mcp_servers: [],
  skills: [],
  multiagent: null,
  metadata: {},
  harness: 'native',
};

const PROMPT: Prompt = {
  tools: [
    { name: 'bash', description: 'runs', input_schema: { type: 'object' } },
    { name: 'read', description: 'reads', input_schema: { type: 'object' } },
  ],
  system: 'Be brief.',
  skills: [],
  messages: [
    { role: 'user', content: [{ type: 'text', text: 'one' }] },
    {
      role: 'assistant',
      content: [
        { type: 'text', text: 'two' },
        { type: 'tool_use', id: 't1', name: 'bash', input: { command: 'ls' } },
      ],
    },
    {
      role: 'user',
      content: [
        { type: 'tool_result', tool_use_id: 't1', content: [{ type: 'text', text: 'files' }], is_error: false },
        { type: 'text', text: 'three' },
      ],
    },
  ],
};

const listed = (...names: string[]) =>
  names.map((name) => ({ name, description: '', input_schema: { type: 'object' as const } }));

describe('tools and permissions', () => {
  it('lists tools in one order, whatever the order of the definition, with web_fetch off by default', () => {
    const names = toolDefinitions(AGENT).map((tool) => tool.name);
    expect(names).toEqual(['bash', 'edit', 'grep', 'read', 'write', 'alpha', 'zeta']);
    const shuffled = { ...AGENT, tools: AGENT.tools.toReversed() };
    expect(toolDefinitions(shuffled).map((tool) => tool.name)).toEqual(names);
  });

  it('has the platform’s tools for other harnesses only, behind custom tools of their names', () => {
    const harnessed: AgentDefinition = { ...AGENT, harness: 'acp', placement: 'inline' };
    expect(judge(AGENT, 'request_approval')).toMatchObject({ kind: 'invalid', verdict: 'deny' });
    expect(judge(harnessed, 'request_approval')).toMatchObject({ kind: 'platform', verdict: 'ask' });
    expect(judge(harnessed, 'report_issue')).toMatchObject({ kind: 'platform', verdict: 'allow' });
    const own = { type: 'custom', name: 'report_issue', description: 'r', input_schema: { type: 'object' } } as const;
    expect(judge({ ...harnessed, tools: [own] }, 'report_issue')).toMatchObject({ kind: 'custom' });
    expect(inputProblem('report_issue', { titel: 'x' })).toContain('title');
    expect(inputProblem('request_approval', { title: 'May I?', arguments: { amount: 3 } })).toBeUndefined();
  });

  it('knows the tools of MCP servers by the agent’s definition alone', () => {
    const agent: AgentDefinition = {
      ...AGENT,
      mcp_servers: [
        { type: 'url', name: 'shop', url: 'https://shop.example' },
        { type: 'url', name: 'unused', url: 'https://unused.example' },
      ],
      tools: [
        {
          type: 'mcp_toolset',
          mcp_server_name: 'shop',
          default_config: { enabled: true, permission_policy: { type: 'auto' } },
          configs: [
            { name: 'search', enabled: true, permission_policy: { type: 'always_allow' } },
            { name: 'drop', enabled: false, permission_policy: { type: 'always_allow' } },
          ],
        },
      ],
    };
    const verdicts = ['shop__search', 'shop__buy__all', 'shop__drop', 'unused__x', 'other__x'].map(
      (name) => judge(agent, `mcp__${name}`).verdict,
    );
    expect(verdicts).toEqual(['allow', 'ask', 'deny', 'deny', 'deny']);
    const listings = [
      { server: 'shop', tools: listed('search', 'drop', 'buy', 'with space'), error: null },
      { server: 'unused', tools: listed('x'), error: null },
    ];
    expect(toolDefinitions(agent, listings).map(({ name }) => name)).toEqual(['mcp__shop__buy', 'mcp__shop__search']);
  });

  it.each([
    ['bash', 'ask'],
    ['read', 'allow'],
    ['grep', 'allow'],
    ['write', 'ask'],
    ['edit', 'ask'],
    ['glob', 'deny'],
    ['web_fetch', 'deny'],
    ['nonsense', 'deny'],
    ['alpha', 'allow'],
  ])('judges %s: %s', (tool, verdict) => {
    expect(judge(AGENT, tool).verdict).toBe(verdict);
  });

  it.each([
    ['bash', {}, 'command'],
    ['bash', { command: 'x', timeout_ms: -1 }, 'timeout_ms'],
    ['bash', { command: 'a\0b' }, 'NUL'],
    ['read', { file_path: 'a', extra: 1 }, 'extra'],
    ['edit', { file_path: 'a', old_string: '', new_string: 'x' }, 'old_string'],
    ['write', { invalid_json: '{' }, 'file_path'],
  ])('refuses bad input of %s: %j', (tool, input, named) => {
    expect(inputProblem(tool, input)).toContain(named);
  });
});

describe('the Messages protocol', () => {
  it('puts static parts first and at most four cache breakpoints', () => {
    const body = messagesBody('claude-x', PROMPT, { type: 'auto', ttl: '5m' });
    expect(Object.keys(body).indexOf('tools')).toBeLessThan(Object.keys(body).indexOf('messages'));
    expect(JSON.stringify(body).match(/cache_control/g)).toHaveLength(4);
    expect(JSON.stringify(messagesBody('claude-x', PROMPT, { type: 'off' }))).not.toContain('cache_control');
    const tools = body['tools'] as { cache_control?: unknown }[];
    expect(tools.map((tool) => tool.cache_control !== undefined)).toEqual([false, true]);
  });

  it('folds a stream into blocks and usage, and tells live text', () => {
    const seen: string[] = [];
    const reader = new MessagesReader({ onText: (kind, text) => seen.push(`${kind}:${text}`) });
    const frames: object[] = [
      { type: 'message_start', message: { usage: { input_tokens: 5, cache_read_input_tokens: 7, output_tokens: 1 } } },
      { type: 'content_block_start', index: 0, content_block: { type: 'thinking', thinking: '' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: 'hm' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'signature_delta', signature: 'sig' } },
      { type: 'content_block_stop', index: 0 },
      { type: 'content_block_start', index: 1, content_block: { type: 'text', text: '' } },
      { type: 'content_block_delta', index: 1, delta: { type: 'text_delta', text: 'hi' } },
      { type: 'content_block_stop', index: 1 },
      { type: 'content_block_start', index: 2, content_block: { type: 'tool_use', id: 't', name: 'bash', input: {} } },
      { type: 'content_block_delta', index: 2, delta: { type: 'input_json_delta', partial_json: '{"command":' } },
      { type: 'content_block_delta', index: 2, delta: { type: 'input_json_delta', partial_json: '"ls"}' } },
      { type: 'content_block_stop', index: 2 },
      { type: 'message_delta', delta: { stop_reason: 'tool_use' }, usage: { output_tokens: 9 } },
      { type: 'message_stop' },
    ];
    for (const frame of frames) reader.push(JSON.stringify(frame));
    const answer = reader.answer();
    expect(answer.content).toEqual([
      { type: 'thinking', thinking: 'hm', signature: 'sig' },
      { type: 'text', text: 'hi' },
      { type: 'tool_use', id: 't', name: 'bash', input: { command: 'ls' } },
    ]);
    expect(answer.usage).toMatchObject({ inputTokens: 5, cacheReadTokens: 7, outputTokens: 9 });
    expect(answer.stopReason).toBe('tool_use');
    expect(seen).toEqual(['thinking:hm', 'text:hi']);
  });

  it('does not take a broken-off stream for an answer', () => {
    const reader = new MessagesReader({ onText: () => undefined });
    reader.push(JSON.stringify({ type: 'message_start', message: {} }));
    expect(() => reader.answer()).toThrow('broke off');
  });

  it('raises a budget stop in the middle of a stream', () => {
    const reader = new MessagesReader({ onText: () => undefined });
    const frame = { type: 'error', error: { type: 'billing_error', message: 'no money' } };
    expect(() => reader.push(JSON.stringify(frame))).toThrow(expect.objectContaining({ code: 'budget_exceeded' }));
  });

  it('keeps tool arguments that are no JSON, so that the model is told', () => {
    const reader = new MessagesReader({ onText: () => undefined });
    for (const frame of [
      { type: 'content_block_start', index: 0, content_block: { type: 'tool_use', id: 't', name: 'bash' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'input_json_delta', partial_json: '{"comm' } },
      { type: 'content_block_stop', index: 0 },
      { type: 'message_stop' },
    ]) {
      reader.push(JSON.stringify(frame));
    }
    expect(reader.answer().content[0]).toMatchObject({ input: { invalid_json: '{"comm' } });
  });
});

const call = (part: object): object => ({ choices: [{ delta: { tool_calls: [{ index: 0, ...part }] } }] });

describe('the chat-completions protocol', () => {
  it('maps tool calls and results to its messages', () => {
    const body = chatBody('gpt-x', PROMPT);
    expect(body['messages']).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: [{ type: 'text', text: 'one' }] },
      {
        role: 'assistant',
        content: 'two',
        tool_calls: [{ id: 't1', type: 'function', function: { name: 'bash', arguments: '{"command":"ls"}' } }],
      },
      { role: 'tool', tool_call_id: 't1', content: 'files' },
      { role: 'user', content: [{ type: 'text', text: 'three' }] },
    ]);
  });

  it('folds chunks into an answer; cached tokens are not counted twice', () => {
    const reader = new ChatReader({ onText: () => undefined });
    for (const chunk of [
      { choices: [{ delta: { content: 'hi' } }] },
      call({ id: 'c1', function: { name: 'bash', arguments: '{"command"' } }),
      call({ function: { arguments: ':"ls"}' } }),
      { choices: [{ delta: {}, finish_reason: 'tool_calls' }] },
      {
        choices: [],
        usage: { prompt_tokens: 10, completion_tokens: 3, prompt_tokens_details: { cached_tokens: 4 } },
      },
    ]) {
      reader.push(JSON.stringify(chunk));
    }
    reader.push('[DONE]');
    const answer = reader.answer();
    expect(answer.content).toEqual([
      { type: 'text', text: 'hi' },
      { type: 'tool_use', id: 'c1', name: 'bash', input: { command: 'ls' } },
    ]);
    expect(answer.usage).toMatchObject({ inputTokens: 6, cacheReadTokens: 4, outputTokens: 3 });
  });
});
