import type { HarnessCapabilities } from '../port.ts';

export const CODEX_CAPABILITIES: HarnessCapabilities = {
  multiSession: true,
  placements: ['inline'],
  perSessionKey: true,
  perMessageModel: true,
  systemPrompt: 'replace',
  mcp: ['http'],
  idempotentMessage: 'looked_up',
  hotReattach: true,
  durablePermission: false,
  remoteTools: true,
  skills: false,
  usageBasis: 'per_call',
  notes: [
    'Asks models on the Responses protocol only.',
    'Its server listens on loopback and takes who has its token; whoever can read the files of the worker’s user has it.',
    'Two tools of its own stay: they list and read resources of the session’s MCP servers.',
    'Documents in a message reach the model only where they are text.',
  ],
};
