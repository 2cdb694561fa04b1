import { randomBytes } from 'node:crypto';
import { createDatabase, dropDatabase } from '../../db/databases.ts';

/** Migrated once by the global setup; every test database is a copy of it. */
export const TEMPLATE_DATABASE = 'longhaul_template';

interface TestDatabase {
  url: string;
  drop(): Promise<void>;
}

function adminUrl(): string {
  const url = process.env['LONGHAUL_TEST_DATABASE_URL'];
  if (url === undefined) throw new Error('LONGHAUL_TEST_DATABASE_URL is not set: run the test through vitest');
  return url;
}

async function makeDatabase(template?: string): Promise<TestDatabase> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  const admin = adminUrl();
  await createDatabase(admin, name, template);
  const url = new URL(admin);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => dropDatabase(admin, name) };
}

/** A database of its own with all migrations applied. */
export function testDatabase(): Promise<TestDatabase> {
  return makeDatabase(TEMPLATE_DATABASE);
}

/** A database of its own with nothing in it, for tests of the migrations. */
export function emptyDatabase(): Promise<TestDatabase> {
  return makeDatabase();
}
