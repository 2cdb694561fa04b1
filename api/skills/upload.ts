import type { Request, Response } from 'express';
import type { Queryable } from '../../db/pool.ts';
import { requireRow, withTransaction } from '../../db/pool.ts';
import type { Principal } from '../../db/queries/api-keys.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import type { SkillContent } from '../../db/queries/skills.ts';
import { actorOf } from '../actor.ts';
import { idempotencyKey, onceUnderKey } from '../idempotency.ts';
import type { Services } from '../services.ts';
import { skillOf } from './read-content.ts';
import { readSkillForm } from './read-form.ts';

/** Reads the form of a skill and stores it once under the request's key; answers with what `store` made. */
export async function storeUpload(
  {
    req,
    res,
    services,
    principal: caller,
  }: { req: Request; res: Response; services: Services; principal: Principal | undefined },
  store: (
    tx: Queryable,
    owner: { teamId: string; createdBy: string },
    content: SkillContent & { displayName: string },
  ) => Promise<{ id: string }>,
): Promise<void> {
  const principal = requireRow(caller, 'the caller');
  const key = idempotencyKey(req);
  const form = await readSkillForm(req);
  const content = skillOf(form.files);
  const actor = actorOf(principal);
  const { teamId } = principal;
  const { response, replayed } = await withTransaction(services.pool, (tx) =>
    onceUnderKey(tx, {
      principalId: principal.id,
      key,
      route: `post ${req.path}`,
      bodyDigest: () => form.digest,
      work: async () => {
        const owner = { teamId, createdBy: actor };
        const made = await store(tx, owner, { ...content, displayName: form.displayName ?? content.name });
        const details = { name: content.name, files: content.files.length, digest: form.digest };
        await insertAudit(tx, { teamId, actor, action: 'skill.upload', resource: made.id, details });
        return made;
      },
      storable: (made) => made,
    }),
  );
  if (replayed) res.setHeader('idempotent-replayed', 'true');
  res.json(response);
}
