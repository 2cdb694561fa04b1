import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VaultBackend } from '../../vault/backends/port.ts';

const canary = (): string => `canary-${randomBytes(16).toString('hex')}`;

/** A back end with a way to write into it from outside. */
export interface VaultBed {
  backend: VaultBackend;
  /** Writes a value for the team; returns the path under which it is read. A second call replaces it. */
  write(teamId: string, name: string, value: string): Promise<string>;
  /** Makes it unreachable; absent: it cannot be. */
  breakDown?: () => void;
  close(): Promise<void>;
}

/** What every back end of the vault does; `without` names what one of its kind does not have. */
export function vaultConformance(
  name: string,
  open: () => Promise<VaultBed>,
  without: readonly ('put' | 'outage')[] = [],
): void {
  describe(`the back end ${name}`, () => {
    let bed: VaultBed;
    beforeAll(async () => {
      bed = await open();
    }, 120_000);
    afterAll(() => bed.close());

    it('gives a value, the same under the same version', async () => {
      const value = canary();
      const path = await bed.write('t', 'ONE', value);
      const first = await bed.backend.get({ teamId: 't', path, field: null });
      expect(first).toMatchObject({ value, expiresAtMs: null });
      expect(first.version).not.toBe('');
      expect(await bed.backend.get({ teamId: 't', path, field: null })).toEqual(first);
    }, 60_000);

    it('gives the new value under a new version once it changed', async () => {
      const path = await bed.write('t', 'TWO', canary());
      const before = await bed.backend.get({ teamId: 't', path, field: null });
      const value = canary();
      await bed.write('t', 'TWO', value);
      const after = await bed.backend.get({ teamId: 't', path, field: null });
      expect(after.value).toBe(value);
      expect(after.version).not.toBe(before.version);
    }, 60_000);

    it('says that there is nothing, and gives no team what is another’s', async () => {
      const value = canary();
      const path = await bed.write('t', 'MINE', value);
      for (const ref of [
        { teamId: 't', path: 'NOTHING', field: null },
        { teamId: 'u', path, field: null },
        { teamId: '..', path, field: null },
        { teamId: 't', path, field: 'no_such_field' },
      ]) {
        const failure = await bed.backend.get(ref).then(
          () => 'it gave something',
          (error: unknown) => error,
        );
        expect(failure).toMatchObject({ code: 'not_found' });
        expect((failure as Error).message).not.toContain(value);
      }
    }, 60_000);

    it('lists what a team has, up to a limit', async () => {
      const { backend } = bed;
      if (backend.list === undefined) throw new Error('it cannot list');
      const path = await bed.write('listed', 'L1', canary());
      await bed.write('listed', 'L2', canary());
      expect(await backend.list('listed', 100)).toContain(path);
      expect(await backend.list('listed', 100)).toHaveLength(2);
      expect(await backend.list('listed', 1)).toHaveLength(1);
      expect(await backend.list('nobody', 100)).toEqual([]);
    }, 60_000);

    it(
      without.includes('put') ? 'is read only' : 'keeps what it is given',
      async () => {
        const { backend } = bed;
        expect(backend.put === undefined).toBe(without.includes('put'));
        if (backend.put === undefined) return;
        const path = await bed.write('t', 'PUT', canary());
        const value = canary();
        const { version } = await backend.put({ teamId: 't', path, field: null }, value);
        expect(await backend.get({ teamId: 't', path, field: null })).toMatchObject({ value, version });
      },
      60_000,
    );

    if (without.includes('outage')) return;
    it('is unavailable, and tells nothing, when it is away', async () => {
      if (bed.breakDown === undefined) throw new Error('the bed cannot take it away');
      const value = canary();
      const path = await bed.write('t', 'AWAY', value);
      bed.breakDown();
      const failure = await bed.backend.get({ teamId: 't', path, field: null }).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: 'credential_unavailable' });
      expect((failure as Error).message).not.toContain(value);
    }, 60_000);
  });
}
