import { z } from 'zod';

/**
 * How a control is kept. `enforced`: it cannot be got around. `observed`: it is looked at, and what goes over it is acted
 * upon after the fact. `unavailable`: not here. It is never pretended.
 */
const control = z.object({ state: z.enum(['enforced', 'observed', 'unavailable']), reason: z.string() });
export type SandboxControl = z.infer<typeof control>;

const controls = z.object({
  network: control,
  credentials: control,
  limits: control,
  pause: control,
  snapshot: control,
});
export type SandboxControls = z.infer<typeof controls>;

/** The sandbox of a session, as the session shows it. */
export const sessionSandbox = z
  .object({
    id: z.string(),
    provider: z.string(),
    state: z.enum(['creating', 'preparing', 'running', 'paused', 'released', 'failed']),
    controls: controls.nullable(),
    snapshot_at: z.iso.datetime().nullable().meta({ description: 'When its files were saved last' }),
    failure: z
      .object({ step: z.string(), message: z.string() })
      .nullable()
      .meta({ description: 'Why it could not be prepared' }),
    created_at: z.iso.datetime(),
  })
  .meta({ id: 'SessionSandbox' });
export type SessionSandbox = z.infer<typeof sessionSandbox>;
