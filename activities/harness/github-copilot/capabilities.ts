import type { HarnessCapabilities } from '../port.ts';

export const COPILOT_CAPABILITIES: HarnessCapabilities = {
  multiSession: true,
  placements: ['inline'],
  perSessionKey: true,
  perMessageModel: true,
  systemPrompt: 'replace',
  mcp: ['http'],
  idempotentMessage: 'looked_up',
  // Its runtime ends the turns of a client that is gone, although it outlives the client itself.
  hotReattach: false,
  durablePermission: false,
  remoteTools: true,
  skills: false,
  usageBasis: 'per_call',
  notes: [
    'A turn ends with the worker that runs it: the next worker tells the model to go on.',
    'Asks models on chat completions; a model whose name begins with "claude" on Messages.',
    'Images and documents in a message reach the model only where they come with their data.',
  ],
};
