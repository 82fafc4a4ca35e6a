#!/usr/bin/env bash
# Build the messages and the overlay with colcon, and write env.bash.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

leave_other_wheels
[ -f "$venv/ros_setup" ] || fail "there is no environment in $venv" "run: make env"
ros_setup=$(cat "$venv/ros_setup")
base="$root | $ros_setup | $("$venv/bin/python" -V)"
lock build

# The interfaces' text and the names of everything that is installed: modules are linked, so that
# a change inside one needs no build.
state() {
  printf '%s\n' "$base"
  cat CMakeLists.txt package.xml msg/* srv/* action/* scripts/entry_point.in scripts/build.sh
  find . \( -path ./.venv -o -path ./.git -o -path ./build -o -path ./install -o -path ./log \) -prune \
    -o \( -path './internvla_ros/*' -o -path './launch/*' -o -path './config/*' -o -path './urdf/*' \
    -o -path './worlds/*' -o -path './checkpoints/*' \) -type f ! -name '*.pyc' -print | LC_ALL=C sort
}

write_env() {
  cat >env.bash.new <<EOF
# ROS 2, the virtual environment and the overlay of $root; written by 'make build'.
# Use it from bash: source $root/env.bash
_internvla_root='$root'
_internvla_flags=\$-
set +eu
if [ -n "\${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ] && [ "\${INTERNVLA_ROOT:-}" != "\$_internvla_root" ]; then
  # Wheels of another checkout do not fit this one's Python.
  unset LD_LIBRARY_PATH PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
fi
. '$ros_setup'
. '$root/install/local_setup.bash'
export INTERNVLA_ROOT=\$_internvla_root VIRTUAL_ENV='$venv'
case ":\$PATH:" in *":\$VIRTUAL_ENV/bin:"*) ;; *) PATH=\$VIRTUAL_ENV/bin:\$PATH ;; esac
# The source tree stands in front of the installed modules; the messages come from behind it.
case ":\${PYTHONPATH:-}:" in
  *":\$_internvla_root:"*) ;;
  *) export PYTHONPATH=\$_internvla_root\${PYTHONPATH:+:\$PYTHONPATH} ;;
esac
# rclpy needs a place for its logs.
[ -n "\${HOME:-}" ] || export ROS_LOG_DIR="\$_internvla_root/log/ros"
unset PYTHONHOME _internvla_root
case \$_internvla_flags in *u*) set -u ;; esac
case \$_internvla_flags in *e*) set -e ;; esac
unset _internvla_flags
EOF
  mv env.bash.new env.bash
}

wanted=$(state | digest)
if [ -f install/.built ] && [ -f env.bash ] && [ "$(cat install/.built)" = "$wanted" ]; then
  exit 0
fi

# CMake remembers where it found things: start afresh with another ROS 2, Python or folder.
if [ "$(cat install/.base 2>/dev/null)" != "$base" ]; then
  rm -rf build/internvla_ros install
fi
say "building the overlay (messages and entry points) into install/"
set +u
# shellcheck disable=SC1090
. "$ros_setup"
set -u
export PATH=$venv/bin:$PATH VIRTUAL_ENV=$venv
mkdir -p log
if ! colcon --log-base log build --base-paths . --build-base build --install-base install \
  --symlink-install --event-handlers console_direct- --cmake-args -DPython3_EXECUTABLE="$venv/bin/python" \
  -DPYTHON_EXECUTABLE="$venv/bin/python" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF >log/build.txt 2>&1; then
  tail -n 40 log/build.txt >&2
  fail "the overlay did not build" "the whole output: log/build.txt" \
    "after a change of Python or ROS 2: make clean, then again"
fi
write_env
touch build/AMENT_IGNORE install/AMENT_IGNORE # the linters of 'colcon test' look at sources alone
printf '%s\n' "$base" >install/.base
printf '%s\n' "$wanted" >install/.built
say "done: source env.bash"
