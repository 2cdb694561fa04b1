import { LonghaulError } from '../../contracts/error-codes.ts';
import { OWN_SERVICES, type OwnService } from '../../contracts/harnesses.ts';

/** Where the product's own services listen, for harnesses inside sandboxes. */
export type ServiceAddresses = ReadonlyMap<OwnService, URL>;

/** `LONGHAUL_EGRESS_SERVICES`: `gateway=http://127.0.0.1:4848 mcp=http://127.0.0.1:4848`. A bad value is refused by name. */
export function readServices(env: Record<string, string | undefined>): ServiceAddresses {
  const items = (env['LONGHAUL_EGRESS_SERVICES'] ?? '').split(/[\s,]+/).filter((item) => item !== '');
  return new Map(
    items.map((item) => {
      const [, name, address = ''] = /^(\w+)=(.+)$/.exec(item) ?? [];
      const service = OWN_SERVICES.find((known) => known === name);
      const url = URL.canParse(address) ? new URL(address) : undefined;
      if (service !== undefined && (url?.protocol === 'http:' || url?.protocol === 'https:')) return [service, url];
      const names = OWN_SERVICES.join(' and ');
      throw new LonghaulError(
        'setup_required',
        `LONGHAUL_EGRESS_SERVICES must be <name>=<URL> with the names ${names}`,
      );
    }),
  );
}
