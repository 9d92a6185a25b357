# lowrank::kernels: the heaviest kernels compiled once. A target that links it compiles faster; others need nothing.
foreach(kernel attention elementwise matmul nf4 rows)
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/lowrank_kernels/${kernel}.cpp @ONLY CONTENT
"#define LOWRANK_KERNEL template
#include \"lowrank/backend/cpu/separate_kernels.hpp\"
namespace lowrank {
#include \"lowrank/backend/cpu/instances/@kernel@.inc\"
}
")
  list(APPEND lowrank_kernel_sources ${CMAKE_CURRENT_BINARY_DIR}/lowrank_kernels/${kernel}.cpp)
endforeach()
add_library(lowrank_kernels STATIC ${lowrank_kernel_sources})
if(NOT PROJECT_IS_TOP_LEVEL) # then only for those that link it
  set_target_properties(lowrank_kernels PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
add_library(lowrank::kernels ALIAS lowrank_kernels)
target_link_libraries(lowrank_kernels PUBLIC lowrank)
target_compile_options(lowrank_kernels INTERFACE "SHELL:-include lowrank/backend/cpu/separate_kernels.hpp")
