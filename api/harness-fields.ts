import type { AgentDefinition } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { AgentHarness, Placement } from '../contracts/harnesses.ts';
import { AVAILABLE_HARNESSES } from '../contracts/harnesses.ts';

type HarnessFields = Pick<AgentDefinition, 'harness' | 'placement' | 'harness_agent'>;
interface HarnessParams {
  harness?: AgentHarness | undefined;
  placement?: Placement | null | undefined;
  harness_agent?: string | null | undefined;
}

/**
 * The harness fields as stored. Absent keeps, null clears; another harness clears both others. Throws `harness_invalid`
 * with the field for what no driver can do.
 */
export function resolveHarness(params: HarnessParams, before: HarnessFields = { harness: 'native' }): HarnessFields {
  const harness = params.harness ?? before.harness;
  const kept = harness === before.harness ? before : undefined;
  const available = AVAILABLE_HARNESSES[harness];
  if (available === undefined) {
    throw refusal('harness', `${harness} has no driver here; there are ${Object.keys(AVAILABLE_HARNESSES).join(', ')}`);
  }
  const placement = (params.placement === undefined ? kept?.placement : params.placement) ?? available.placements[0];
  if (placement === undefined || !available.placements.includes(placement)) {
    throw refusal('placement', `${harness} runs ${available.placements.join(' or ')}`);
  }
  const agent = (params.harness_agent === undefined ? kept?.harness_agent : params.harness_agent) ?? undefined;
  requireAgent(harness, available.agents, agent);
  if (harness === 'native') return { harness };
  return { harness, placement, ...(agent === undefined ? {} : { harness_agent: agent }) };
}

function requireAgent(harness: AgentHarness, agents: readonly string[], agent: string | undefined): void {
  if (agents.length === 0) {
    if (agent !== undefined) throw refusal('harness_agent', `${harness} has no agents to choose from`);
  } else if (agent === undefined || !agents.includes(agent)) {
    throw refusal('harness_agent', `must be one of ${agents.join(', ')}`);
  }
}

function refusal(field: string, message: string): LonghaulError {
  return new LonghaulError('harness_invalid', message, { field });
}

/** The definition without its harness fields, for an edit that sets them anew. */
export function withoutHarness<T extends HarnessFields>(definition: T): Omit<T, keyof HarnessFields> {
  const { harness: _harness, placement: _placement, harness_agent: _agent, ...rest } = definition;
  return rest;
}
