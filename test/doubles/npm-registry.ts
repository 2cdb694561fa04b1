import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';

interface PackageFiles {
  name: string;
  version: string;
  optionalDependencies?: Record<string, string>;
  /** Path in the package → content; files under `bin/` may be executed. */
  files: Record<string, string>;
}

/** The npm registry's wire, as far as `npm install` uses it, with packages made here. */
export class NpmRegistry {
  readonly url: string;
  /** Tarballs that were asked for. */
  readonly tarballs: string[] = [];
  #held: ServerResponse[] | null = null;
  readonly #close: () => void;

  private constructor(url: string, close: () => void) {
    this.url = url;
    this.#close = close;
  }

  static async start(packages: PackageFiles[]): Promise<NpmRegistry> {
    const archives = new Map(packages.map((each) => [each.name, { ...each, tarball: pack(each) }]));
    const server = createServer((request, response) => {
      const [name = '', file] = decodeURIComponent(request.url ?? '')
        .slice(1)
        .split('/-/');
      const found = archives.get(name);
      if (found === undefined) return void response.writeHead(404).end('{}');
      if (file === undefined) return void response.end(JSON.stringify(describePackage(registry.url, found)));
      registry.tarballs.push(name);
      if (registry.#held === null) response.end(found.tarball);
      else registry.#held.push(response);
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const registry = new NpmRegistry(`http://127.0.0.1:${port}`, () => {
      server.closeAllConnections();
      server.close();
    });
    return registry;
  }

  /** From now on no tarball is sent. */
  hold(): void {
    this.#held = [];
  }

  /** Tarballs are sent again; requests that waited are cut. */
  release(): void {
    for (const response of this.#held ?? []) response.destroy();
    this.#held = null;
  }

  close(): void {
    this.#close();
  }
}

function describePackage(url: string, found: PackageFiles & { tarball: Buffer }): object {
  const { name, version, optionalDependencies, tarball } = found;
  const integrity = `sha512-${createHash('sha512').update(tarball).digest('base64')}`;
  const dist = { tarball: `${url}/${name}/-/${version}.tgz`, integrity };
  return {
    name,
    'dist-tags': { latest: version },
    versions: { [version]: { name, version, optionalDependencies: optionalDependencies ?? {}, dist } },
  };
}

function pack({ name, version, files, optionalDependencies }: PackageFiles): Buffer {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-pack-'));
  try {
    const manifest = JSON.stringify({ name, version, optionalDependencies });
    for (const [file, content] of Object.entries({ ...files, 'package.json': manifest })) {
      const target = path.join(folder, 'package', file);
      mkdirSync(path.dirname(target), { recursive: true });
      writeFileSync(target, content);
      if (file.startsWith('bin/')) chmodSync(target, 0o755);
    }
    execFileSync('tar', ['-czf', 'package.tgz', 'package'], { cwd: folder });
    return readFileSync(path.join(folder, 'package.tgz'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
