import type { HarnessCapabilities } from '../port.ts';

export const OPENCODE_CAPABILITIES: HarnessCapabilities = {
  multiSession: true,
  placements: ['inline'],
  perSessionKey: true,
  perMessageModel: true,
  systemPrompt: 'replace',
  mcp: ['http'],
  idempotentMessage: 'deduplicated',
  hotReattach: true,
  durablePermission: false,
  remoteTools: true,
  skills: true,
  usageBasis: 'per_call',
  notes: [
    'Its conversation is in a database of the home it runs in: a session cannot move to a worker on another machine.',
    'A call of the model that answers with HTML hangs until the watchdog ends the turn.',
    'Images and documents given by their address are told as text; those with their data go along.',
  ],
};
