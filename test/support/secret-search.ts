import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Client } from '@temporalio/client';
import type { Query } from './session-driver.ts';

/** A secret in the forms in which it might lie about. */
function formsOf(secret: string): Buffer[] {
  const bytes = Buffer.from(secret);
  // Of base64 only what does not depend on where in a longer text the secret stands.
  const inner = [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .slice(4, -4),
  );
  return [bytes, Buffer.from(bytes.toString('hex')), ...inner.map((text) => Buffer.from(text))];
}

/** Which of `secrets` stand in some bytes. */
function foundIn(content: Buffer, secrets: readonly string[]): string[] {
  return secrets.filter((secret) => formsOf(secret).some((form) => content.includes(form)));
}

type Findings = Map<string, Set<string>>;

function note(findings: Findings, place: string, secrets: string[]): void {
  for (const secret of secrets) findings.set(secret, (findings.get(secret) ?? new Set()).add(place));
}

/** Every row of every table, as text. */
async function searchDatabase(query: Query, secrets: readonly string[], findings: Findings): Promise<void> {
  const tables = await query<{ name: string }>(
    `SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) AS name FROM information_schema.tables
     WHERE table_type = 'BASE TABLE' AND table_schema = 'public'`,
  );
  for (const { name } of tables) {
    const rows = await query<{ text: string }>(`SELECT t::text AS text FROM ${name} AS t`);
    for (const { text } of rows) note(findings, 'database', foundIn(Buffer.from(text), secrets));
  }
}

/** The events of every workflow, payloads decoded. */
async function searchHistories(client: Client, secrets: readonly string[], findings: Findings): Promise<void> {
  for await (const { workflowId, runId } of client.workflow.list()) {
    const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
    const text = JSON.stringify(history, (_key, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value,
    );
    note(findings, 'history', foundIn(Buffer.from(text, 'latin1'), secrets));
  }
}

/** Every file below a folder: data of the servers, logs, sandboxes. */
function searchFiles(folder: string, secrets: readonly string[], findings: Findings): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) searchFiles(file, secrets, findings);
    if (!entry.isFile()) continue;
    const place = file.includes('/logs/') ? 'log' : file.includes('/sandboxes/') ? 'sandbox' : 'file';
    try {
      if (statSync(file).size > 0) note(findings, place, foundIn(readFileSync(file), secrets));
    } catch (error) {
      // Servers remove files while we look.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

/** Environment and arguments of every process we may look into, those inside sandboxes too. */
function searchProcesses(secrets: readonly string[], findings: Findings): void {
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const file of ['environ', 'cmdline']) {
      try {
        note(findings, file, foundIn(readFileSync(`/proc/${pid}/${file}`), secrets));
      } catch {
        // It ended, or is somebody else's.
      }
    }
  }
}

/** Where each of `secrets` is found: in the database, histories, files of the home, and processes of this machine. */
export async function searchEverywhere(
  at: { query: Query; temporal: Client; home: string },
  secrets: readonly string[],
): Promise<Record<string, string[]>> {
  const findings: Findings = new Map();
  await searchDatabase(at.query, secrets, findings);
  await searchHistories(at.temporal, secrets, findings);
  searchFiles(at.home, secrets, findings);
  searchProcesses(secrets, findings);
  return Object.fromEntries([...findings].map(([secret, places]) => [secret, [...places].toSorted()]));
}
