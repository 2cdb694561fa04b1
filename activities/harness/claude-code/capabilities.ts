import type { HarnessCapabilities } from '../port.ts';

export const CLAUDE_CODE_CAPABILITIES: HarnessCapabilities = {
  multiSession: false,
  placements: ['inline'],
  perSessionKey: true,
  perMessageModel: true,
  systemPrompt: 'replace',
  mcp: ['http'],
  idempotentMessage: 'looked_up',
  hotReattach: false,
  durablePermission: true,
  remoteTools: true,
  skills: false,
  usageBasis: 'per_turn',
  notes: [
    'One process of about 200 MB for each turn that runs; none while a person is asked or the session rests.',
    'Asks models on the Anthropic protocol only; its short names of models (opus, sonnet) are sent as the names they stand for.',
    'It puts a line of its own before the system prompt.',
    'Of two calls in one answer that both wait for people it keeps the last one; what became of the other is told to the model in words.',
    'Messages that begin with a slash are text: its own commands, skills and subagents are off.',
  ],
};
