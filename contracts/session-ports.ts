import { z } from 'zod';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';

/** A port of the session's sandbox to open. */
export const sessionPortCreate = z
  .strictObject({
    port: z
      .int()
      .min(1)
      .max(65_535)
      .meta({ description: 'Where a program of the sandbox listens on 127.0.0.1 or ::1' }),
    ttl_seconds: z
      .int()
      .min(LIMITS.portTtlMinMs / 1_000)
      .max(LIMITS.portTtlMaxMs / 1_000)
      .default(LIMITS.portTtlMs / 1_000),
  })
  .meta({ id: 'SessionPortCreate' });

const fields = {
  id: z.string(),
  type: z.literal('session_port'),
  session_id: z.string(),
  port: z.int(),
  origin: z.string().meta({ description: 'Where it is served; opens with the token only' }),
  created_by: z.string(),
  created_at: time,
  expires_at: time,
};
/** An open port, without its token. */
export const sessionPort = z.object(fields).meta({ id: 'SessionPort' });
export type SessionPortResource = z.infer<typeof sessionPort>;
export const sessionPortCreated = z
  .object({
    ...fields,
    url: z
      .string()
      .nullable()
      .meta({ description: 'With the token: opens the port to whoever holds it. null when the request is repeated' }),
  })
  .meta({ id: 'SessionPortCreated' });
export const sessionPortList = z.object({ data: z.array(sessionPort) }).meta({ id: 'SessionPortList' });
export const sessionPortPath = z.object({ session_id: z.string(), port_id: z.string() });
export const sessionPortClosed = z
  .object({ id: z.string(), type: z.literal('session_port_closed') })
  .meta({ id: 'SessionPortClosed' });
