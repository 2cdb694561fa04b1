import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Pool } from '../../db/pool.ts';
import { findSealedCredential } from '../../db/queries/credential-secrets.ts';
import type { SealPlace } from '../../vault/envelope.ts';
import { KeyRing } from '../../vault/key-ring.ts';
import { openParts, rewrap } from '../../vault/open.ts';
import { sealParts } from '../../vault/seal.ts';
import { canary, makeCredential, makeVault, newKey, newRing, vaultDatabase } from './support.ts';

const PLACE: SealPlace = { teamId: 't', vaultId: 'vlt_1', credentialId: 'vcrd_1', version: 1 };

describe('a sealed value', () => {
  it('opens at its place, and shows neither itself nor its length', () => {
    const ring = newRing();
    const value = canary();
    const sealed = sealParts(ring, PLACE, { value });
    expect(openParts(ring, PLACE, sealed)).toEqual({ value });
    expect(Buffer.concat([sealed.sealed, sealed.wrappedKey]).includes(value)).toBe(false);
    expect(sealParts(ring, PLACE, { value: 'longer than before by some' }).sealed.length).toBe(
      sealParts(ring, PLACE, { value: 'short one' }).sealed.length,
    );
    expect(sealParts(ring, PLACE, { value }).sealed.equals(sealed.sealed)).toBe(false);
  });

  it.each<[string, Partial<SealPlace>]>([
    ['another team', { teamId: 'u' }],
    ['another vault', { vaultId: 'vlt_2' }],
    ['another credential', { credentialId: 'vcrd_2' }],
    ['another version', { version: 2 }],
    ['parts that join to the same text', { teamId: 't","vlt_1', vaultId: '' }],
  ])('does not open for %s', (_name, moved) => {
    const ring = newRing();
    const sealed = sealParts(ring, PLACE, { value: canary() });
    expect(() => openParts(ring, { ...PLACE, ...moved }, sealed)).toThrow('does not open');
  });

  it('does not open after any bit of it was changed, or when it is cut, and the error holds nothing of it', () => {
    const ring = newRing();
    const value = canary();
    const sealed = sealParts(ring, PLACE, { value });
    for (const part of ['sealed', 'wrappedKey'] as const) {
      for (let at = 0; at < sealed[part].length; at += 1) {
        const changed = Buffer.from(sealed[part]);
        changed[at] = (changed[at] ?? 0) ^ 1;
        expect(() => openParts(ring, PLACE, { ...sealed, [part]: changed })).toThrow('does not open');
        const cut = sealed[part].subarray(0, at);
        expect(() => openParts(ring, PLACE, { ...sealed, [part]: cut })).toThrow('does not open');
      }
    }
    const other = sealParts(ring, PLACE, { value });
    expect(() => openParts(ring, PLACE, { ...sealed, wrappedKey: other.wrappedKey })).toThrow(
      expect.not.objectContaining({ message: expect.stringContaining(value) }),
    );
  });

  it('opens with old keys, is wrapped anew under the current one, and not without its key', () => {
    const [oldKey, newOne] = [newKey(), newKey()];
    const before = KeyRing.parse(oldKey);
    const both = KeyRing.parse(`${newOne}\n${oldKey}`);
    const after = KeyRing.parse(newOne);
    const sealed = sealParts(before, PLACE, { value: 'the value' });
    expect(openParts(both, PLACE, sealed)).toEqual({ value: 'the value' });
    expect(() => openParts(after, PLACE, sealed)).toThrow(`master key ${before.current.id}, which is not here`);
    const moved = { ...sealed, ...rewrap(both, PLACE, sealed) };
    expect(moved.keyId).toBe(after.current.id);
    expect(openParts(after, PLACE, moved)).toEqual({ value: 'the value' });
    expect(() => openParts(before, PLACE, moved)).toThrow('which is not here');
    // A wrapped key says which master key wrapped it; another name for it does not pass.
    expect(() => openParts(both, PLACE, { ...moved, keyId: before.current.id })).toThrow('does not open');
  });
});

describe('a key', () => {
  it.each(['', 'short', `${'a'.repeat(42)}!`, newKey().slice(4)])('is refused without being told: %j', (text) => {
    expect(() => KeyRing.parse(text)).toThrow(/LONGHAUL_VAULT_KEY/);
    if (text !== '') expect(() => KeyRing.parse(text)).not.toThrow(text);
  });

  it('is the same in any spelling', () => {
    const bytes = Buffer.from(newKey(), 'base64');
    const ids = ['base64', 'base64url', 'hex'].map((form) => KeyRing.parse(bytes.toString(form as 'hex')).current.id);
    expect(new Set(ids).size).toBe(1);
  });
});

describe('rows', () => {
  let pool: Pool;
  let close: () => Promise<void>;
  beforeAll(async () => {
    ({ pool, close } = await vaultDatabase());
  }, 120_000);
  afterAll(() => close());

  it('cannot be swapped in the database', async () => {
    const ring = newRing();
    const vaultId = await makeVault(pool);
    const [mine, theirs] = await Promise.all(
      ['mine', 'theirs'].map((value) => makeCredential(pool, ring, { vaultId, parts: { value }, name: value })),
    );
    const open = async (id: string) => {
      const row = await findSealedCredential(pool, id);
      const [version, value] = [...(row?.sealed ?? [])][0]!;
      return openParts(ring, { teamId: row!.teamId, vaultId: row!.vaultId, credentialId: id, version }, value);
    };
    expect(await open(mine!)).toEqual({ value: 'mine' });
    await pool.query(
      `UPDATE credential_versions m SET sealed = o.sealed, wrapped_key = o.wrapped_key FROM credential_versions o
       WHERE m.credential_id = $1 AND o.credential_id = $2`,
      [mine, theirs],
    );
    await expect(open(mine!)).rejects.toThrow('does not open');
    expect(await open(theirs!)).toEqual({ value: 'theirs' });
    // A credential moved into another vault, where others may use it.
    const elsewhere = await makeVault(pool);
    await pool.query('UPDATE credentials SET vault_id = $2 WHERE id = $1', [theirs, elsewhere]);
    await expect(open(theirs!)).rejects.toThrow('does not open');
  }, 60_000);
});
