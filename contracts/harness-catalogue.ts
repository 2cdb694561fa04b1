import { z } from 'zod';
import { HARNESS_INSTALL_NAMES } from './harness-versions.ts';
import { HARNESS_NAMES, PLACEMENTS } from './harnesses.ts';

/** As with sandboxes: what is kept, what is only looked at, what is not there. */
const control = z.object({ state: z.enum(['enforced', 'observed', 'unavailable']), reason: z.string() });
export type HarnessControl = z.infer<typeof control>;

const controls = z
  .object({
    tools: control.meta({ description: 'Every tool call that may change something is decided by the agent’s policy' }),
    model: control.meta({ description: 'Which model is asked' }),
    cost: control.meta({ description: 'Budgets, and the ledger of costs' }),
    credentials: control.meta({ description: 'No key of a provider reaches the harness' }),
    isolation: control.meta({ description: 'Sessions of one harness are kept apart' }),
  })
  .meta({ id: 'HarnessControls' });
export type HarnessControls = z.infer<typeof controls>;

const capabilities = z
  .object({
    multi_session: z.boolean().meta({ description: 'One process serves many sessions' }),
    per_session_key: z.boolean(),
    per_message_model: z.boolean(),
    system_prompt: z.enum(['replace', 'append', 'none']),
    mcp: z.array(z.enum(['http', 'stdio'])),
    idempotent_message: z.enum(['deduplicated', 'looked_up', 'none']),
    hot_reattach: z.boolean().meta({ description: 'A turn goes on when its worker dies' }),
    durable_permission: z.boolean(),
    remote_tools: z.boolean().meta({ description: 'Its own tools can be taken away' }),
    skills: z.boolean(),
    usage_basis: z.enum(['per_call', 'per_turn', 'last_call', 'cumulative', 'none']),
    notes: z.array(z.string()).meta({ description: 'What it cannot do' }),
  })
  .meta({ id: 'HarnessCapabilities' });

const program = z.object({
  name: z.enum(HARNESS_INSTALL_NAMES as [string, ...string[]]),
  package: z.string(),
  version: z.string(),
  licence: z.string(),
  installed: z.boolean().nullable().meta({ description: 'null: no worker answered' }),
});

const placement = z.object({ placement: z.enum(PLACEMENTS as [string, ...string[]]), controls });

export const harness = z
  .object({
    type: z.literal('harness'),
    name: z.enum(['native', ...HARNESS_NAMES]).meta({ description: 'What an agent’s `harness` says' }),
    programs: z.array(program).meta({ description: 'What it needs installed; empty for `native`' }),
    available: z.boolean().meta({ description: 'Agents may be made with it' }),
    placements: z.array(placement),
    capabilities: capabilities.nullable().meta({ description: 'null: `native`, no driver, or no worker answered' }),
  })
  .meta({ id: 'Harness' });
export type Harness = z.infer<typeof harness>;

export const harnessList = z.object({
  data: z.array(harness),
  worker: z.object({
    answered: z.boolean(),
    reason: z.string().nullable().meta({ description: 'Why nothing is known of what is installed' }),
  }),
});
export type HarnessList = z.infer<typeof harnessList>;
