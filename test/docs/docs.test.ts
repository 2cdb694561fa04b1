import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ENDPOINTS } from '../../api/routes/index.ts';
import { ERROR_CATALOGUE } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { APPROVAL_MOVES, EFFECT_MOVES, INPUT_MOVES } from '../../contracts/states.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8');

function markdownUnder(folder: string): string[] {
  return readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => path.join(folder, name));
}

const DOCUMENTS = ['README.md', 'ARCHITECTURE.md', 'AGENTS.md', 'CONTRIBUTING.md', ...markdownUnder('docs')];

function withoutCode(markdown: string): string {
  return markdown.replaceAll(/^(`{3,}|~{3,})[^\n]*\n[\s\S]*?^\1[ \t]*$/gm, '').replaceAll(/`[^`\n]*`/g, '');
}

/** Anchors as GitHub makes them of headings, and explicit ones. */
function anchorsOf(markdown: string): Set<string> {
  const plain = markdown.replaceAll(/^(`{3,}|~{3,})[^\n]*\n[\s\S]*?^\1[ \t]*$/gm, '');
  const headings = [...plain.matchAll(/^#{1,6} (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
  const explicit = [...plain.matchAll(/<a id="([^"]+)">/g)].map(([, id = '']) => id);
  return new Set([...headings, ...explicit]);
}

/** Rows of every table, cells trimmed. */
function rowsOf(markdown: string): string[][] {
  return markdown
    .split('\n')
    .filter((line) => line.startsWith('|') && !/^[|\s:-]+$/.test(line))
    .map((line) =>
      line
        .slice(1, line.lastIndexOf('|'))
        .split('|')
        .map((cell) => cell.trim()),
    );
}

const code = (cell: string | undefined): string[] =>
  [...(cell ?? '').matchAll(/`([^`]+)`/g)].map(([, word = '']) => word);

function configFiles(): string[] {
  const folders = readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !['node_modules', 'dist'].includes(entry.name))
    .map((entry) => entry.name);
  // A process's config may be made of those of its parts.
  const below = (parents: string[]): string[] =>
    parents.flatMap((folder) =>
      readdirSync(path.join(ROOT, folder), { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => path.join(folder, entry.name)),
    );
  const parts = below(folders);
  return [...folders, ...parts, ...below(parts)]
    .map((folder) => path.join(folder, 'config.ts'))
    .filter((file) => existsSync(path.join(ROOT, file)));
}

/** Names in quotes (`env['NAME']`, `text('NAME')`) and keys of a schema. */
function variablesOf(source: string): string[] {
  const quoted = [...source.matchAll(/['"]([A-Z][A-Z0-9_]{3,})['"]/g)].map(([, name = '']) => name);
  const keys = [...source.matchAll(/^\s+([A-Z][A-Z0-9_]{3,}):/gm)].map(([, name = '']) => name);
  return [...new Set([...quoted, ...keys])].filter((name) => name !== 'LC_ALL' && name !== 'HOME');
}

describe('links', () => {
  it.each(DOCUMENTS)('%s has no dead internal link', (file) => {
    const dead: string[] = [];
    for (const [, target = ''] of withoutCode(read(file)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [to = '', anchor] = target.split('#', 2);
      const resolved = to === '' ? file : path.join(path.dirname(file), to);
      if (!existsSync(path.join(ROOT, resolved))) dead.push(target);
      else if (anchor !== undefined && !anchorsOf(read(resolved)).has(anchor)) dead.push(target);
    }
    expect(dead).toEqual([]);
  });

  it('every document can be reached from the README', () => {
    const seen = new Set(['README.md']);
    for (const file of seen) {
      if (!file.endsWith('.md')) continue;
      for (const [, target = ''] of withoutCode(read(file)).matchAll(/\]\(([^)\s#]+)/g)) {
        const next = path.join(path.dirname(file), target);
        if (!/^[a-z]+:/.test(target) && statSync(path.join(ROOT, next)).isFile()) seen.add(next);
      }
    }
    expect(DOCUMENTS.filter((file) => !seen.has(file))).toEqual(['AGENTS.md']);
  });
});

describe('reference', () => {
  const configuration = rowsOf(read('docs/reference/configuration.md')).flatMap(([first]) => code(first));

  it('there are config files to check', () => {
    expect(configFiles()).toEqual(expect.arrayContaining(['api/config.ts', 'gateway/config.ts', 'worker/config.ts']));
  });

  it.each(configFiles())('every variable of %s is in configuration.md', (file) => {
    const variables = variablesOf(read(file));
    expect(variables.length).toBeGreaterThan(0);
    expect(variables.filter((name) => !configuration.includes(name))).toEqual([]);
  });

  it('configuration.md names no variable that nobody reads', () => {
    const known = new Set(configFiles().flatMap((file) => variablesOf(read(file))));
    const named = configuration.filter((name) => /^[A-Z][A-Z0-9_]+$/.test(name));
    expect(named.filter((name) => !known.has(name))).toEqual([]);
  });

  it('errors.md is the catalogue', () => {
    const rows = rowsOf(read('docs/reference/errors.md')).slice(1);
    const table = rows.map(([name, status, type, retry, next]) => [code(name)[0], status, code(type)[0], retry, next]);
    expect(table).toEqual(
      Object.entries(ERROR_CATALOGUE).map(([name, entry]) => [
        name,
        String(entry.status),
        entry.type,
        entry.retryable ? 'yes' : 'no',
        entry.next,
      ]),
    );
  });

  it('limits.md has every limit with its value', () => {
    const rows = rowsOf(read('docs/reference/limits.md'));
    const limits = new Map(rows.map(([key, value]) => [code(key)[0], value]));
    const wrong = Object.entries(LIMITS).filter(([key, value]) => limits.get(key) !== String(value));
    expect(wrong).toEqual([]);
  });

  it('api.md has every route, and no other', () => {
    const named = rowsOf(read('docs/reference/api.md')).flatMap(([first]) =>
      code(first).filter((word) => /^(GET|POST|DELETE) /.test(word)),
    );
    const routes = ENDPOINTS.map((item) => `${item.method.toUpperCase()} ${item.path}`);
    expect(named.toSorted()).toEqual(routes.toSorted());
  });
});

describe('ARCHITECTURE.md', () => {
  it.each([
    ['Input', INPUT_MOVES],
    ['Effect', EFFECT_MOVES],
    ['Approval', APPROVAL_MOVES],
  ])('%s: the table of states is that of the code', (title, moves: Record<string, readonly string[]>) => {
    const section =
      read('ARCHITECTURE.md')
        .split(`\n${title}:\n`)[1]
        ?.split(/\n\n(?!\|)/)[0] ?? '';
    const table = rowsOf(section)
      .slice(1)
      .map(([from, to]) => [code(from)[0], code(to)]);
    expect(table).toEqual(Object.entries(moves).map(([from, to]) => [from, [...to]]));
  });
});

describe('rules', () => {
  it('AGENTS.md has at most 60 lines', () => {
    expect(read('AGENTS.md').trimEnd().split('\n').length).toBeLessThanOrEqual(60);
  });

  it.each(DOCUMENTS)('%s names no path of a machine and no package registry', (file) => {
    const forbidden = /(?<![\w.}])\/(?:root|home|work|tmp|Users)\/|registry\.[a-z]|artifactory|\.npmrc/gi;
    expect(read(file).match(forbidden)).toBeNull();
  });

  it('the README starts with exactly these commands', () => {
    const readme = read('README.md');
    expect(readme).toContain('```sh\nnpm ci && npm run demo\n```');
    expect(readme).toContain('```sh\nnpm ci && npm test\n```');
  });
});
