import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';

interface Service {
  image: string;
  ports?: string[];
  volumes?: string[];
  healthcheck?: { test?: string[]; disable?: boolean };
  depends_on?: Record<string, { condition: string }>;
  restart?: string;
  entrypoint?: string[];
  command?: string[];
  environment?: Record<string, string>;
  networks?: string[] | Record<string, { aliases?: string[] } | null>;
  pid?: string;
  user?: string;
  cap_add?: string[];
  cap_drop?: string[];
}

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8');
const compose = parse(read('docker-compose.yml'), { merge: true }) as {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
  networks: Record<string, { internal?: boolean } | null>;
};
const services = Object.entries(compose.services);
const networksOf = ({ networks = [] }: Service): string[] =>
  Array.isArray(networks) ? networks : Object.keys(networks);
const named = (name: string): Service => compose.services[name] as Service;
const having = (variable: string): string[] =>
  services.filter(([, { environment }]) => variable in (environment ?? {})).map(([name]) => name);
const volumesOf = (each: Service): string[] => (each.volumes ?? []).map((volume) => volume.split(':')[0] ?? '');
const oneShots = new Set(['temporal-schema', 'temporal-namespace', 'prepare']);

describe('docker-compose.yml', () => {
  it('pins every image to a full version', () => {
    for (const [name, { image }] of services) expect(image, name).toMatch(/^[a-z/-]+:\d+\.\d+(\.\d+)?(-[a-z]+)?$/);
    for (const [, image] of read('Dockerfile').matchAll(/^FROM (\S+)/gm)) expect(image).toMatch(/^node:\d+\.\d+\.\d+-/);
  });

  it('runs the Temporal version the dev server has, and never the retired auto-setup image', () => {
    const versions = services.filter(([, { image }]) => /temporalio\/(server|admin-tools)/.test(image));
    expect(new Set(versions.map(([, { image }]) => image.split(':')[1]))).toEqual(new Set(['1.31.2']));
    expect(services.some(([, { image }]) => image.includes('auto-setup'))).toBe(false);
  });

  it('publishes ports on loopback only', () => {
    const ports = services.flatMap(([, service]) => service.ports ?? []);
    expect(ports.length).toBeGreaterThan(0);
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it('checks the health of every server, without curl, and waits for it', () => {
    for (const [name, service] of services) {
      if (oneShots.has(name)) {
        expect(service.restart, name).toMatch(/^on-failure:\d+$/);
        continue;
      }
      expect(service.restart, name).toBe('unless-stopped');
      expect(service.healthcheck, name).toBeDefined();
      expect(JSON.stringify(service.healthcheck)).not.toContain('curl');
    }
    for (const [name, service] of services) {
      for (const [needed, { condition }] of Object.entries(service.depends_on ?? {})) {
        const expected = oneShots.has(needed) ? 'service_completed_successfully' : 'service_healthy';
        expect(condition, `${name} → ${needed}`).toBe(expected);
        expect(compose.services, needed).toHaveProperty(needed);
      }
    }
  });

  it('keeps data in named volumes and mounts only files that exist', () => {
    for (const [name, service] of services) {
      for (const volume of service.volumes ?? []) {
        const [source = '', target] = volume.split(':');
        expect(target, `${name}: ${volume} is anonymous`).toBeDefined();
        if (source.startsWith('./')) {
          expect(existsSync(path.join(root, source)), source).toBe(true);
          expect(volume, `${name} may not write ${source}`).toMatch(/:ro$/);
        } else {
          expect(Object.keys(compose.volumes), volume).toContain(source);
        }
      }
    }
    expect(compose.services['postgres']?.volumes?.[0]).toBe('postgres-data:/var/lib/postgresql/data');
  });

  it('sizes the history shards itself and holds no password', () => {
    expect(compose.services['temporal']?.environment?.['NUM_HISTORY_SHARDS']).toContain('512');
    for (const [name, service] of services) {
      for (const [variable, value] of Object.entries(service.environment ?? {})) {
        if (/PASSWORD|PWD|_KEY$|_TOKEN$/.test(variable)) expect(value, `${name}.${variable}`).toMatch(/^\$\{/);
      }
    }
    const example = read('deploy/compose/example.env');
    for (const [, variable] of read('docker-compose.yml').matchAll(/\$\{([A-Z_]+):\?/g)) {
      expect(example).toMatch(new RegExp(`^${variable}=$`, 'm'));
    }
  });

  it('gives provider keys to the gateway only, and the servers no way out', () => {
    const withKeys = services.filter(([, { environment }]) =>
      Object.keys(environment ?? {}).includes('ANTHROPIC_API_KEY'),
    );
    expect(withKeys.map(([name]) => name)).toEqual(['gateway']);
    for (const name of ['postgres', 'temporal']) {
      for (const network of networksOf(named(name))) {
        expect(compose.networks[network]?.internal, `${name} on ${network}`).toBe(true);
      }
    }
  });

  it('gives the master key to api and broker only, the broker’s token to those who ask it', () => {
    expect(having('LONGHAUL_VAULT_KEY').toSorted()).toEqual(['api', 'egress']);
    expect(having('LONGHAUL_EGRESS_TOKEN').toSorted()).toEqual(['api', 'egress', 'worker']);
    expect(having('LONGHAUL_EGRESS_URL').toSorted()).toEqual(['api', 'worker']);
  });

  it('lets api and worker reach the broker’s control, nobody else', () => {
    const onControl = services.filter(([, each]) => networksOf(each).includes('control')).map(([name]) => name);
    expect(onControl.toSorted()).toEqual(['api', 'egress', 'worker']);
    expect(compose.networks['control']?.internal).toBe(true);
    const { environment = {}, networks = {} } = named('egress');
    // It listens at a name that means its address in that network alone.
    const aliases = Object.entries(networks).flatMap(([name, each]) =>
      (each as { aliases?: string[] } | null)?.aliases?.includes(environment['LONGHAUL_EGRESS_HOST'] ?? '') === true
        ? [name]
        : [],
    );
    expect(aliases).toEqual(['control']);
    const url = `http://${environment['LONGHAUL_EGRESS_HOST']}:${environment['LONGHAUL_EGRESS_PORT']}`;
    for (const name of ['api', 'worker']) expect(named(name).environment?.['LONGHAUL_EGRESS_URL']).toBe(url);
    expect(named('api').environment?.['LONGHAUL_PORTS_URL']).toBe(environment['LONGHAUL_PORTS_URL']);
  });

  it('lets the broker join what the worker made, with no more than that takes, and share the trust bundle only', () => {
    const [egress, worker] = [named('egress'), named('worker')];
    expect(egress.pid).toBe('service:processes');
    expect(worker.pid).toBe(egress.pid);
    expect([egress.cap_drop, egress.cap_add]).toEqual([['ALL'], ['SYS_ADMIN', 'SYS_PTRACE']]);
    expect([worker.cap_drop, worker.cap_add]).toEqual([['ALL'], undefined]);
    // Another user than the worker's, which could otherwise read its memory and its key.
    expect([egress.user, worker.user]).toEqual(['0:0', undefined]);
    expect(volumesOf(egress).filter((volume) => volumesOf(worker).includes(volume))).toEqual(['longhaul-trust']);
    expect(worker.volumes).toContain('longhaul-trust:/var/lib/longhaul-trust:ro');
    const file = egress.environment?.['LONGHAUL_EGRESS_TRUST_BUNDLE'];
    expect(file).toMatch(/^\/var\/lib\/longhaul-trust\//);
    expect(worker.environment?.['LONGHAUL_EGRESS_TRUST_BUNDLE']).toBe(file);
  });

  it('starts entry points that are compiled', () => {
    const commands = services.flatMap(([, service]) => service.command ?? []).join(' ');
    const entries = commands.match(/dist\/[a-z/]+\.js/g) ?? [];
    expect(entries).toEqual(
      expect.arrayContaining(['api', 'worker', 'gateway', 'egress'].map((role) => `dist/${role}/main.js`)),
    );
    for (const entry of entries) {
      const source = entry.replace(/^dist\//, '').replace(/\.js$/, '.ts');
      expect(existsSync(path.join(root, source)), source).toBe(true);
    }
  });

  it('has scripts that can be run, and search attributes as the dev server has them', () => {
    for (const script of ['create-databases.sh', 'temporal-schema.sh', 'temporal-namespace.sh']) {
      expect(statSync(path.join(root, 'deploy/compose', script)).mode & 0o111, script).toBe(0o111);
    }
    const server = read('cli/stack/temporal-server.ts');
    const table = /SEARCH_ATTRIBUTES = \{([^}]*)\}/.exec(server)?.[1] ?? '';
    const inDev = [...table.matchAll(/(\w+): '(\w+)'/g)].map(([, name, type]) => `${type} ${name}`);
    const script = read('deploy/compose/temporal-namespace.sh');
    const inCompose = [
      ...script.matchAll(/add (Keyword|Int|KeywordList|Bool|Datetime) ([A-Za-z ]+?)(?= &&|;)/g),
    ].flatMap(([, type, names = '']) => names.split(' ').map((name) => `${type} ${name}`));
    expect(inDev.length).toBe(11);
    expect(inCompose.toSorted()).toEqual(inDev.toSorted());
  });

  it('keeps secrets and local state out of the image', () => {
    const ignored = read('.dockerignore').split('\n');
    expect(ignored).toEqual(expect.arrayContaining(['.git', '.env', '.longhaul', 'node_modules']));
    expect(read('Dockerfile')).toMatch(/^USER node$/m);
  });
});
