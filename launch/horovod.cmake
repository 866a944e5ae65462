# Read by CMake as its toolchain file while launch/install_horovod.sh builds Horovod 0.28.1, whose source is of early
# 2023 and stays as it is: what a current PyTorch, gcc and CMake ask for is said here. Needs CMake 3.21.

# Some of it must hold after each project() has set its defaults, so the file is read there once more.
set(CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_FILE}")

# PyTorch's headers are C++20; Horovod's lists ask for 14.
set(CMAKE_CXX14_STANDARD_COMPILE_OPTION "-std=c++20")

# Used by Horovod without being included, which gcc 13 no longer forgives.
set(CMAKE_CXX_FLAGS_INIT "-include stdexcept -include string")

# Its default build type carries 17 MB of debug information.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O3 -DNDEBUG")

# An nvcc that merely lies on the machine is no reason for a CUDA build.
if(NOT "$ENV{HOROVOD_GPU_OPERATIONS}" STREQUAL "NCCL")
  set(CMAKE_CUDA_COMPILER "")
  set(CMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit ON)
endif()

# The copy of gloo in the source names a CMake version that CMake 4 refuses.
set(CMAKE_POLICY_VERSION_MINIMUM 3.5)
