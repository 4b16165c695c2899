#!/usr/bin/env bash
# The tests of the digests on a processor with AVX-512, for machines that have none: avx512.sh UNIT_AUTH
#
# Bochs emulates a Skylake-X; a Debian kernel starts in it with a file system in memory that holds the test binary and what it
# links. XSAVEC and XSAVES are hidden from the kernel: it does not believe the emulator's sizes of their areas and would switch
# AVX off. Two to five minutes, most of them the kernel's start.
set -euo pipefail
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

kernel=$(apt-cache depends --important linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
apt-get -qq download "$kernel" 2>/dev/null
dpkg -x "$kernel"_*.deb kernel

mkdir -p disk/{bin,lib,lib64,proc,dev,tmp} iso/isolinux
cp /bin/busybox disk/bin/busybox
ln -s busybox disk/bin/sh
cp "$binary" disk/bin/tests
ldd "$binary" | awk '$3 ~ "^/" { print $3 }' | xargs -I{} cp -L {} disk/lib/
cp -L /lib64/ld-linux-x86-64.so.2 disk/lib64/
cat > disk/init <<'INIT'
#!/bin/sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox grep -q -w avx512bw /proc/cpuinfo && echo "processor: has AVX-512"
LD_LIBRARY_PATH=/lib /bin/tests --gtest_filter='Hash*:Digest*:Sha256*' --gtest_color=no 2>&1
echo "tests: exit status $?"
/bin/busybox sleep 1
/bin/busybox poweroff -f
INIT
chmod +x disk/init
(cd disk && find . | cpio --quiet -o -H newc | gzip -1) > iso/disk.gz
cp kernel/boot/vmlinuz-* iso/vmlinuz
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso/isolinux/
cat > iso/isolinux/isolinux.cfg <<'BOOT'
DEFAULT tests
LABEL tests
 KERNEL /vmlinuz
 APPEND initrd=/disk.gz rdinit=/init console=ttyS0 quiet mitigations=off noapic tsc=reliable clearcpuid=xsaves,xsavec,pku
BOOT
xorriso -as mkisofs -quiet -o boot.iso -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table iso 2>/dev/null
cat > machine <<BOCHS
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/console
log: $work/bochs.log
display_library: term
clock: sync=none
BOCHS
echo continue > commands  # Debian's bochs begins in its debugger
touch console
script -qec "bochs -q -f machine -rc commands" /dev/null > screen 2>&1 < /dev/null &
emulator=$!
end() {  # the emulator does not heed SIGTERM; it runs in the session that script made for it
  local shell
  shell=$(pgrep -P "$emulator" | head -1) && pkill -9 -s "$shell"
  kill -9 "$emulator"
  wait "$emulator"
  rm -rf "$work"
}
trap 'end > /dev/null 2>&1' EXIT
for ((second = 0; second < 900; ++second)); do
  if grep -aq "^tests: exit status\|Kernel panic" console || ! kill -0 $emulator 2>/dev/null; then break; fi
  sleep 1
done
sed -n '/^processor:/,$p' console | tr -d '\r' | grep -av "OK \]\|RUN  "
grep -aq "^processor: has AVX-512" console || { echo "avx512: the emulated machine did not get as far as AVX-512"; exit 1; }
grep -aq "^tests: exit status 0" console
