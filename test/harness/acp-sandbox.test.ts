import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { AcpDriver } from '../../activities/harness/acp/driver.ts';
import { SandboxStdio } from '../../activities/harness/host/stdio-sandbox.ts';
import type { HarnessSpec, SandboxPlace } from '../../activities/harness/port.ts';
import { HARNESSES_INSIDE } from '../../activities/sandbox/local/enter.ts';
import { OWN_SERVICES, ownServiceHost } from '../../contracts/harnesses.ts';
import type { HarnessUnderTest, HarnessWorld } from '../conformance/harness-bed.ts';
import { harnessConformance } from '../conformance/harness.suite.ts';
import { doubleRecipe } from '../support/acp-double.ts';
import { EgressBed, PROXY_ENV } from '../support/egress-bed.ts';
import { doubleFolder } from '../support/harness-folder.ts';
import { soon } from '../support/sandbox-commands.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

const MIB = 1024 * 1024;
/** Nobody's key: the broker takes it out. */
const PLACEHOLDER = 'placeholder-of-the-session';

/** Real sandboxes behind a real broker, which knows the suite's gateway and tools by their names. */
class SandboxBed {
  readonly folder = doubleFolder();
  readonly #places = new Map<string, SandboxPlace>();
  #egress: Promise<EgressBed> | undefined;

  async prepare(spec: HarnessSpec, world: HarnessWorld): Promise<HarnessSpec> {
    const agent = { name: 'a', model: { id: 'scripted' }, harness: 'acp', placement: 'sandbox', mcp_servers: [] };
    const networking = { type: 'limited', allowed_hosts: [], allow_mcp_servers: false, allow_package_managers: false };
    await world.pool.query('UPDATE sessions SET agent = $2, environment = $3 WHERE id = $1', [
      spec.sessionId,
      agent,
      { type: 'cloud', provider: 'local', networking },
    ]);
    this.#egress ??= this.#start(world);
    const bed = await this.#egress;
    const { ref } = await bed.sandbox(spec.sessionId, spec.sessionId, { memoryBytes: 1024 * MIB });
    const sandbox = { provider: bed.sandboxes.provider, ref, env: PROXY_ENV };
    this.#places.set(spec.sessionId, sandbox);
    return {
      ...spec,
      sandbox,
      cwd: '/workspace',
      stateDir: '/workspace/.longhaul',
      model: { baseUrl: `http://${ownServiceHost('gateway')}`, key: PLACEHOLDER },
      mcpServers: [{ name: 'longhaul', url: `http://${ownServiceHost('mcp')}/mcp`, headers: {} }],
    };
  }

  placeOf({ sessionId }: HarnessSpec): SandboxStdio {
    const place = this.#places.get(sessionId);
    if (place === undefined) throw new Error(`no sandbox of ${sessionId}`);
    return new SandboxStdio(place);
  }

  async readFile({ sessionId }: HarnessSpec, name: string): Promise<string | undefined> {
    const place = this.#places.get(sessionId);
    const file = `/workspace/${name}`;
    if (place === undefined || (await place.provider.stat(place.ref, file, soon())) === null) return undefined;
    return Buffer.from(await place.provider.readFile(place.ref, file, MIB, soon())).toString('utf8');
  }

  async close(): Promise<void> {
    await (await this.#egress)?.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #start(world: HarnessWorld): Promise<EgressBed> {
    const secretsFile = path.join(this.folder, 'values.json');
    writeFileSync(secretsFile, '{}', { mode: 0o644 });
    const [mode] = SANDBOX_MODES;
    if (mode === undefined) throw new Error('no way to have sandboxes');
    const urls = { gateway: world.tap.url, mcp: new URL(world.tools.url).origin };
    return EgressBed.start({
      mode,
      rules: { hosts: {}, addresses: [] },
      policies: { databaseUrl: world.databaseUrl, secretsFile, holdMs: 0 },
      env: { LONGHAUL_EGRESS_SERVICES: OWN_SERVICES.map((name) => `${name}=${urls[name]}`).join(' ') },
      harnessDir: this.folder,
    });
  }
}

const make = (): Promise<HarnessUnderTest> => {
  const bed = new SandboxBed();
  const recipes = new Map([['double', doubleRecipe('', ['node', `${HARNESSES_INSIDE}/acp-agent.mjs`])]]);
  const under: HarnessUnderTest = {
    driver: () =>
      new AcpDriver({
        recipes,
        place: (spec) => Promise.resolve(bed.placeOf(spec)),
        program: () => Promise.resolve(undefined),
        placements: ['sandbox'],
        keepMs: 600_000,
      }),
    placement: 'sandbox',
    hands: 'own',
    agent: 'double',
    shell: { tool: 'bash', input: (command) => ({ command }) },
    prepare: (spec, world) => bed.prepare(spec, world),
    readFile: (spec, name) => bed.readFile(spec, name),
    kill: (spec) => bed.placeOf(spec).end(spec.sessionId, soon()),
    // What runs inside has no process of this machine to look at; its environment is the spec's.
    pids: () => Promise.resolve([]),
    close: () => bed.close(),
  };
  return Promise.resolve(under);
};

harnessConformance('acp, inside a sandbox', make, 'place');
