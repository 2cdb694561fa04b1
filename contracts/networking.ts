import { z } from 'zod';
import { canonicalHostPattern, isCidr, isPathGlob } from './hosts.ts';
import { LIMITS } from './limits.ts';

/** A host name or address, or `*.` before a name for all names below it. Kept in the one form in which it is compared. */
export const hostPattern = z
  .string()
  .min(1)
  .max(253)
  .transform((text, context) => {
    const canonical = canonicalHostPattern(text);
    if (canonical !== undefined) return canonical;
    context.addIssue({
      code: 'custom',
      message: 'must be a host name or an address like api.example.com, or *.example.com, without scheme, port or path',
    });
    return z.NEVER;
  })
  .meta({ example: '*.example.com' });
const hosts = z.array(hostPattern).max(LIMITS.egressHosts);

export const methods = z
  .array(
    z
      .string()
      .regex(/^[A-Za-z]{1,20}$/, 'must be an HTTP method')
      .transform((method) => method.toUpperCase()),
  )
  .min(1)
  .max(20);
const paths = z
  .array(
    z
      .string()
      .max(1_024)
      .refine(
        isPathGlob,
        'must begin with / and hold no query, .., backslash or percent sign; * is within a segment, ** over several',
      ),
  )
  .min(1)
  .max(100);

/** One rule about requests. The most specific one that fits decides. */
const ruleParam = z.strictObject({
  host: hostPattern,
  methods: methods.nullish(),
  paths: paths.nullish(),
  action: z.enum(['allow', 'deny', 'ask']),
});
const privateAddress = z
  .string()
  .min(1)
  .max(253)
  .transform((text, context) => {
    const canonical = isCidr(text) ? text : canonicalHostPattern(text);
    if (canonical !== undefined) return canonical;
    context.addIssue({ code: 'custom', message: 'must be a network like 10.1.0.0/16, an address or a host' });
    return z.NEVER;
  });

const unmatched = z.enum(['deny', 'ask']);
const maxRequestBytes = z.number().int().min(1).max(LIMITS.egressRequestBytesMax);
const maxRequests = z.number().int().min(1).max(LIMITS.egressRequestsMax);

/** What sandboxes of an environment may reach, as clients write it. Absent: `limited` with no host. */
export const networkingParam = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('unrestricted') }),
  z.strictObject({
    type: z.literal('limited'),
    allowed_hosts: hosts.nullish(),
    allow_mcp_servers: z.boolean().nullish(),
    allow_package_managers: z.boolean().nullish(),
    rules: z.array(ruleParam).max(LIMITS.egressRules).nullish().meta({ description: 'Longhaul’s own' }),
    unmatched: unmatched.nullish().meta({ description: 'Longhaul’s own: what happens to what nothing allows' }),
    tls_passthrough_hosts: hosts
      .nullish()
      .meta({ description: 'Longhaul’s own: TLS to them is not read, so no credential is put in' }),
    private_addresses: z
      .array(privateAddress)
      .max(LIMITS.egressHosts)
      .nullish()
      .meta({ description: 'Longhaul’s own: private networks, addresses or hosts that may be reached' }),
    max_request_bytes: maxRequestBytes.nullish().meta({ description: 'Longhaul’s own: body of one request' }),
    max_requests: maxRequests.nullish().meta({ description: 'Longhaul’s own: requests of one session' }),
  }),
]);
export type NetworkingParam = z.infer<typeof networkingParam>;

const rule = z.object({
  host: z.string(),
  methods: z.array(z.string()).nullable(),
  paths: z.array(z.string()).nullable(),
  action: z.enum(['allow', 'deny', 'ask']),
});
export type EgressRule = z.infer<typeof rule>;

/** The same as it is stored and shown; rows of earlier releases lack what is optional here. */
export const networking = z.discriminatedUnion('type', [
  z.object({ type: z.literal('unrestricted') }),
  z.object({
    type: z.literal('limited'),
    allowed_hosts: z.array(z.string()),
    allow_mcp_servers: z.boolean(),
    allow_package_managers: z.boolean(),
    rules: z.array(rule).exactOptional(),
    unmatched: unmatched.exactOptional(),
    tls_passthrough_hosts: z.array(z.string()).exactOptional(),
    private_addresses: z.array(z.string()).exactOptional(),
    max_request_bytes: z.number().int().exactOptional(),
    max_requests: z.number().int().exactOptional(),
  }),
]);
export type Networking = z.infer<typeof networking>;

/** As stored: defaults applied. Nothing said is nothing allowed. */
export function resolveNetworking(param: NetworkingParam | null | undefined): Networking {
  if (param?.type === 'unrestricted') return { type: 'unrestricted' };
  return {
    type: 'limited',
    allowed_hosts: unique(param?.allowed_hosts),
    allow_mcp_servers: param?.allow_mcp_servers ?? false,
    allow_package_managers: param?.allow_package_managers ?? false,
    ...longhaulFields(param ?? {}),
  };
}

/** Only those that were given: clients of the Managed Agents shape see nothing they did not send. */
function longhaulFields(param: Partial<Extract<NetworkingParam, { type: 'limited' }>>): Partial<Networking> {
  const { rules, unmatched: otherwise, tls_passthrough_hosts: passthrough, private_addresses: addresses } = param;
  return {
    ...(rules === undefined || rules === null ? {} : { rules: resolveRules(rules) }),
    ...(otherwise === undefined || otherwise === null ? {} : { unmatched: otherwise }),
    ...(passthrough === undefined || passthrough === null ? {} : { tls_passthrough_hosts: unique(passthrough) }),
    ...(addresses === undefined || addresses === null ? {} : { private_addresses: unique(addresses) }),
    ...(param.max_request_bytes === undefined || param.max_request_bytes === null
      ? {}
      : { max_request_bytes: param.max_request_bytes }),
    ...(param.max_requests === undefined || param.max_requests === null ? {} : { max_requests: param.max_requests }),
  };
}

/** Rules as stored. */
export function resolveRules(rules: readonly z.infer<typeof ruleParam>[]): EgressRule[] {
  return rules.map((one) => ({ ...one, methods: one.methods ?? null, paths: one.paths ?? null }));
}

function unique(list: readonly string[] | null | undefined): string[] {
  return [...new Set(list)];
}

/** Rules of a team: they hold in all its environments, before theirs. */
export const egressPolicyParam = z
  .strictObject({ rules: z.array(ruleParam).max(LIMITS.egressRules) })
  .meta({ id: 'EgressPolicyParam' });
export const egressPolicy = z
  .object({ type: z.literal('egress_policy'), rules: z.array(rule), updated_at: z.iso.datetime().nullable() })
  .meta({ id: 'EgressPolicy' });
