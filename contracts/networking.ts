import { z } from 'zod';

const hosts = z.array(z.string().min(1).max(253)).max(1_000);

/** What sandboxes of an environment may reach, as clients write it. */
export const networkingParam = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('unrestricted') }),
  z.strictObject({
    type: z.literal('limited'),
    allowed_hosts: hosts.nullish(),
    allow_mcp_servers: z.boolean().nullish(),
    allow_package_managers: z.boolean().nullish(),
  }),
]);

/** The same as it is stored and shown. */
export const networking = z.discriminatedUnion('type', [
  z.object({ type: z.literal('unrestricted') }),
  z.object({
    type: z.literal('limited'),
    allowed_hosts: hosts,
    allow_mcp_servers: z.boolean(),
    allow_package_managers: z.boolean(),
  }),
]);
