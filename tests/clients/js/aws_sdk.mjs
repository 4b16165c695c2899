// The AWS SDK for JavaScript v3: streams, listings, its default checksums (CRC32, sent as a trailer), lib-storage's
// parallel multipart upload, presigned requests.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import {
  CreateBucketCommand, DeleteBucketCommand, DeleteObjectsCommand, GetObjectCommand, HeadObjectCommand, ListObjectsV2Command,
  PutObjectCommand, S3Client, paginateListObjectsV2,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';

const s3 = new S3Client({ endpoint: process.env.BASALT_ENDPOINT, region: 'us-east-1', forcePathStyle: true, maxAttempts: 1 });
const Bucket = `js-${randomBytes(6).toString('hex')}`;
const bytes = async (Key, more = {}) => {
  const reply = await s3.send(new GetObjectCommand({ Bucket, Key, ...more }));
  return Buffer.from(await reply.Body.transformToByteArray());
};

await s3.send(new CreateBucketCommand({ Bucket }));
const small = randomBytes(50000);
await s3.send(new PutObjectCommand({ Bucket, Key: 'small', Body: small, Metadata: { colour: 'grey' } }));
assert.ok(small.equals(await bytes('small')));
assert.ok(small.equals(await bytes('small', { ChecksumMode: 'ENABLED' })));
const pieces = [randomBytes(70000), randomBytes(1), randomBytes(200000)];
const whole = Buffer.concat(pieces);
await s3.send(new PutObjectCommand({ Bucket, Key: 'streamed', Body: Readable.from(pieces), ContentLength: whole.length }));
assert.ok(whole.equals(await bytes('streamed')));
assert.ok(whole.subarray(69990, 70010).equals(await bytes('streamed', { Range: 'bytes=69990-70009' })));
for (const ChecksumAlgorithm of ['CRC32', 'CRC32C', 'SHA1', 'SHA256']) {
  const Key = `sum/${ChecksumAlgorithm}`;
  const put = await s3.send(new PutObjectCommand({ Bucket, Key, Body: small, ChecksumAlgorithm }));
  const head = await s3.send(new HeadObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }));
  assert.ok(put[`Checksum${ChecksumAlgorithm}`]);
  assert.equal(head[`Checksum${ChecksumAlgorithm}`], put[`Checksum${ChecksumAlgorithm}`]);
}
const head = await s3.send(new HeadObjectCommand({ Bucket, Key: 'small' }));
assert.equal(head.ContentLength, small.length);
assert.deepEqual(head.Metadata, { colour: 'grey' });
await assert.rejects(s3.send(new GetObjectCommand({ Bucket, Key: 'absent' })), { name: 'NoSuchKey' });
await assert.rejects(s3.send(new PutObjectCommand({ Bucket, Key: 'small', Body: 'x', IfNoneMatch: '*' })), { name: 'PreconditionFailed' });

const large = randomBytes(12 * 1024 * 1024);
const upload = new Upload({
  client: s3, queueSize: 3, partSize: 5 * 1024 * 1024,
  params: { Bucket, Key: 'dir/large ü+&', Body: Readable.from([large.subarray(0, 7000000), large.subarray(7000000)]) },
});
await upload.done();
assert.ok(large.equals(await bytes('dir/large ü+&')));

const list = await s3.send(new ListObjectsV2Command({ Bucket, Delimiter: '/' }));
assert.deepEqual(list.Contents.map((item) => item.Key), ['small', 'streamed']);
assert.deepEqual(list.CommonPrefixes.map((item) => item.Prefix), ['dir/', 'sum/']);
const keys = [];
for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket })) keys.push(...page.Contents.map((item) => item.Key));
assert.deepEqual(keys, ['dir/large ü+&', 'small', 'streamed', 'sum/CRC32', 'sum/CRC32C', 'sum/SHA1', 'sum/SHA256']);

const put = await fetch(await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: 'presigned' }), { expiresIn: 60 }), { method: 'PUT', body: 'by url' });
assert.equal(put.status, 200);
const get = await fetch(await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: 'presigned' }), { expiresIn: 60 }));
assert.equal(await get.text(), 'by url');

const gone = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: [...keys, 'presigned'].map((Key) => ({ Key })) } }));
assert.equal(gone.Deleted.length, keys.length + 1);
await s3.send(new DeleteBucketCommand({ Bucket }));
console.log('aws_sdk: all as expected');
