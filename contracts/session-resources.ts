import { z } from 'zod';
import { gitBranch, gitCommit, gitUrl, mountPath } from './environments.ts';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';

const checkout = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('branch'), name: gitBranch }),
  z.strictObject({ type: z.literal('commit'), sha: gitCommit }),
]);
/** A token as it stands in a header: one line, no spaces. */
const token = z
  .string()
  .min(1)
  .max(4_096)
  .regex(/^[\x21-\x7e]+$/, 'must be one line of printable ASCII without spaces')
  .meta({ description: 'Write-only: it goes into a vault, and never into a sandbox', writeOnly: true });

const githubRepository = z
  .strictObject({
    type: z.literal('github_repository'),
    url: gitUrl,
    authorization_token: token.optional(),
    checkout: checkout.nullish(),
    mount_path: mountPath.nullish(),
  })
  .meta({ id: 'GithubRepositoryResourceParam' });

export const sessionResourceParams = z
  .array(z.discriminatedUnion('type', [githubRepository], { error: 'only github_repository is supported yet' }))
  .max(LIMITS.repositories);
export type SessionResourceParam = z.infer<typeof sessionResourceParams>[number];

export const sessionResource = z
  .object({
    id: z.string(),
    type: z.literal('github_repository'),
    url: z.string(),
    mount_path: z.string(),
    checkout: checkout.nullable(),
    created_at: time,
    updated_at: time,
  })
  .meta({ id: 'SessionResource' });
export type SessionResourceShown = z.infer<typeof sessionResource>;

/** As stored in `sessions.resources`; the token is sealed in a vault of the session's own. */
export interface StoredSessionResource extends SessionResourceShown {
  credential: { vaultId: string; credentialId: string } | null;
}

export const sessionResourcePath = z.object({ session_id: z.string(), resource_id: z.string() });
export const sessionResourceUpdate = z
  .strictObject({ authorization_token: token })
  .meta({ id: 'SessionResourceUpdate' });
